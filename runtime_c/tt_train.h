/* Training: what a model that learns brings along, and the loop over the support set. */
#ifndef TT_TRAIN_H
#define TT_TRAIN_H

#include "tt_learn.h"

/* How a head learns. */
typedef struct tt_head_learning {
    /* Loss of one sample and a step of the head's own weights. gradient: of the loss with respect to the embedding,
     * mantissas; its exponent is returned through the pointer. scratch: 2 * classes.
     * Returns 1 - p[label] with 15 fraction bits. */
    int32_t (*learn)(const tt_session *s, tt_rate *rate, const int8_t *features, int32_t label, int16_t *gradient,
                     int32_t *exponent, int64_t *scratch);
    /* Class means follow the layers: computed again in front of each epoch and after the last, not of the first alone. */
    int32_t recomputes;
} tt_head_learning;

/* A compiled backward pass. Offsets are into the session's regions. */
struct tt_learning {
    /* Backward and update for one sample, after run(regions, 1) and the loss; NULL where the head alone learns. */
    void (*backward)(uint8_t *const regions[], tt_rate *rate, int32_t exponent);
    const tt_head_learning *head;
    uint32_t learnt_region, learnt_offset, learnt_bytes;       /* deltas and running means: layers', then the head's */
    uint32_t head_offset, head_bytes;                          /* the head's part, counted from the region's start */
    uint32_t gradient_region, gradient_offset;                 /* the embedding's gradient: int16 */
    uint32_t loss_region, loss_offset;                         /* 2 * classes int64, while the loss is computed */
};

/* What a head has learnt: head_bytes, all zero after tt_forget(). */
TT_INLINE void *tt_head_state(const tt_session *s)
{
    const tt_learning *const l = s->model->learning;
    return s->regions[l->learnt_region] + l->head_offset;
}

#endif
