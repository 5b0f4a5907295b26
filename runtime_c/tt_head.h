/*
 * What all heads share: class means and lengths, in integers (docs/reference/numerics.md, "Heads").
 *
 * A head is two files: tt_<head>.c classifies (tt_model.classify), tt_<head>_loss.c learns (tt_learning.head).
 */
#ifndef TT_HEAD_H
#define TT_HEAD_H

#include "tinytrain.h"

/* Add one embedding to a class. TT_ERR_FULL leaves the class as it was. */
tt_status tt_head_enroll(const tt_session *s, const int8_t *features, int32_t label);

/* Length of an embedding with 16 fraction bits. */
int64_t tt_head_length(const tt_model *model, const int8_t *features);

typedef struct tt_projection {
    int64_t along;        /* of an embedding, in the direction of a class's mean: 16 fraction bits */
    int64_t class_length; /* of the sum of the class's embeddings, 7 fraction bits; where it is 0, so is along */
} tt_projection;

/* An embedding's projection on the mean of a class with examples. */
tt_projection tt_head_project(const tt_session *s, const int8_t *features, uint32_t label);

/* What a head has learnt: head_bytes, all zero after tt_forget(). */
static inline void *tt_head_state(const tt_session *s)
{
    return s->regions[s->model->state_region] + s->model->head_offset;
}

#endif
