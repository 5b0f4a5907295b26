/* The prototype head: class means and cosine similarity, in integers (docs/numerics.md). */
#ifndef TT_HEAD_H
#define TT_HEAD_H

#include "tinytrain.h"

/* Add one embedding to a class. TT_ERR_FULL leaves the prototype as it was. */
tt_status tt_head_enroll(const tt_model *model, int16_t *sums, uint16_t *shots, const int8_t *features, int32_t label);

/* The most similar enrolled class and its cosine; label -1 where none is enrolled. */
void tt_head_classify(const tt_model *model, const int16_t *sums, const uint16_t *shots, const int8_t *features,
                      int32_t *label, int32_t *score);

#endif
