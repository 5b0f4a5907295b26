/* The prototype head: class means and cosine similarity, in integers (docs/numerics.md). */
#ifndef TT_HEAD_H
#define TT_HEAD_H

#include "tinytrain.h"

/* Add one embedding to a class. TT_ERR_FULL leaves the prototype as it was. */
tt_status tt_head_enroll(const tt_model *model, int16_t *sums, uint16_t *shots, const int8_t *features, int32_t label);

/* floor(sqrt(value)), bit by bit. */
uint32_t tt_square_root(uint64_t value);

/* Length of an embedding with 16 fraction bits. */
int64_t tt_head_length(const tt_model *model, const int8_t *features);

typedef struct tt_similarity {
    int32_t cosine;       /* TT_SCORE_BITS fraction bits */
    int64_t class_length; /* of the sum of the class's embeddings, 7 fraction bits */
} tt_similarity;

/* Cosine between an embedding of the given length and the prototype of a class with examples. */
tt_similarity tt_head_similarity(const tt_model *model, const int16_t *sums, const uint16_t *shots,
                                 const int8_t *features, int64_t length, uint32_t label);

/* The most similar enrolled class and its cosine; label -1 where none is enrolled. */
void tt_head_classify(const tt_model *model, const int16_t *sums, const uint16_t *shots, const int8_t *features,
                      int32_t *label, int32_t *score);

#endif
