/* The linear head: softmax over weights that start as the classes' mean directions and learn (docs/numerics.md). */
#ifndef TT_LINEAR_H
#define TT_LINEAR_H

#include "tt_train.h"

/* score: the probability, TT_SCORE_BITS fraction bits. */
void tt_linear_classify(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score);

extern const tt_head_learning tt_linear_learning;

#endif
