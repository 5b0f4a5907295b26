/* Training: what a model that learns brings along, and the loop over the support set. */
#ifndef TT_TRAIN_H
#define TT_TRAIN_H

#include "tt_learn.h"

/* A compiled backward pass. Offsets are into the session's regions. */
struct tt_learning {
    /* Backward and update for one sample, after run(regions, 1) and the loss. */
    void (*backward)(uint8_t *const regions[], tt_rate *rate, int32_t exponent);
    uint32_t learnt_region, learnt_offset, learnt_bytes;       /* deltas and running means */
    uint32_t gradient_region, gradient_offset;                 /* the embedding's gradient: int16 */
    uint32_t loss_region, loss_offset;                         /* 2 * classes int64, while the loss is computed */
};

#endif
