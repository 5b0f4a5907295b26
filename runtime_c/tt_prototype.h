/* The prototype head: the class whose mean has the largest cosine with the embedding (docs/numerics.md). */
#ifndef TT_PROTOTYPE_H
#define TT_PROTOTYPE_H

#include "tt_train.h"

/* score: the cosine, TT_SCORE_BITS fraction bits. */
void tt_prototype_classify(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score);

/* Nothing of its own to learn: means are recomputed, because the layers move them. */
extern const tt_head_learning tt_prototype_learning;

#endif
