/*
 * What all heads share: class means, lengths, exponentials, in integers (docs/numerics.md, "Heads").
 *
 * A head is a file of its own, tt_prototype.c or tt_linear.c: a function that classifies, which tt_model names, and
 * a tt_head_learning, which tt_learning names.
 */
#ifndef TT_HEAD_H
#define TT_HEAD_H

#include "tinytrain.h"

/* Add one embedding to a class. TT_ERR_FULL leaves the class as it was. */
tt_status tt_head_enroll(const tt_session *s, const int8_t *features, int32_t label);

/* floor(sqrt(value)), bit by bit. */
uint32_t tt_square_root(uint64_t value);

/* Length of an embedding with 16 fraction bits. */
int64_t tt_head_length(const tt_model *model, const int8_t *features);

typedef struct tt_projection {
    int64_t along;        /* of an embedding, in the direction of a class's mean: 16 fraction bits */
    int64_t class_length; /* of the sum of the class's embeddings, 7 fraction bits; where it is 0, so is along */
} tt_projection;

/* An embedding's projection on the mean of a class with examples. */
tt_projection tt_head_project(const tt_session *s, const int8_t *features, uint32_t label);

/* exp(-d / 2^15) with 15 fraction bits, d >= 0 and below 2^46. */
int32_t tt_exp_negative(int64_t d);

#endif
