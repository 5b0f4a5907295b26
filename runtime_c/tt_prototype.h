/* The prototype head: the class whose mean has the largest cosine with the embedding (docs/reference/numerics.md). */
#ifndef TT_PROTOTYPE_H
#define TT_PROTOTYPE_H

#include "tt_head.h"

/* Of an embedding of this length with a class's mean, TT_SCORE_BITS fraction bits. */
static inline int32_t tt_cosine(tt_projection on_class, int64_t length)
{
    return length == 0 ? 0 : (int32_t)(on_class.along * (INT64_C(1) << TT_SCORE_BITS) / length);
}

/* score: the cosine, TT_SCORE_BITS fraction bits. */
void tt_prototype_classify(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score);

#endif
