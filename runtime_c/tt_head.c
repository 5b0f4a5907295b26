#include "tt_head.h"

tt_status tt_head_enroll(const tt_model *model, int16_t *sums, uint16_t *shots, const int8_t *features, int32_t label)
{
    if (label < 0 || (uint32_t)label >= model->classes) {
        return TT_ERR_LABEL;
    }
    if (shots[label] >= TT_MAX_SHOTS) {
        return TT_ERR_FULL;
    }
    int16_t *sum = sums + (size_t)label * model->features;
    for (uint32_t i = 0; i < model->features; i++) {
        sum[i] = (int16_t)(sum[i] + features[i]);
    }
    shots[label]++;
    return TT_OK;
}

uint32_t tt_square_root(uint64_t value)
{
    uint64_t root = 0;
    for (uint64_t bit = (uint64_t)1 << 62; bit != 0; bit >>= 2) {
        if (value >= root + bit) {
            value -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return (uint32_t)root;
}

int64_t tt_head_length(const tt_model *model, const int8_t *features)
{
    uint64_t square = 0;
    for (uint32_t i = 0; i < model->features; i++) {
        const int32_t f = features[i] - model->features_zero;
        square += (uint32_t)(f * f);
    }
    return tt_square_root(square << 32);
}

tt_similarity tt_head_similarity(const tt_model *model, const int16_t *sums, const uint16_t *shots,
                                 const int8_t *features, int64_t length, uint32_t label)
{
    const int16_t *sum = sums + (size_t)label * model->features;
    const int32_t zero = model->features_zero;
    const int32_t offset = zero * (int32_t)shots[label];
    int64_t dot = 0;
    uint64_t square = 0;
    for (uint32_t i = 0; i < model->features; i++) {
        const int32_t p = sum[i] - offset; /* |p| <= 255 * TT_MAX_SHOTS < 2^16 */
        dot += p * (features[i] - zero);
        square += (uint64_t)((int64_t)p * p);
    }
    tt_similarity result = { 0, tt_square_root(square << 14) };
    if (length != 0 && result.class_length != 0) {
        /* Multiplications, not shifts: dot may be negative. */
        const int64_t along = dot * (INT64_C(1) << 23) / result.class_length; /* 16 fraction bits */
        result.cosine = (int32_t)(along * (INT64_C(1) << TT_SCORE_BITS) / length);
    }
    return result;
}

void tt_head_classify(const tt_model *model, const int16_t *sums, const uint16_t *shots, const int8_t *features,
                      int32_t *label, int32_t *score)
{
    const int64_t length = tt_head_length(model, features);
    *label = -1;
    *score = 0;
    for (uint32_t c = 0; c < model->classes; c++) {
        if (shots[c] != 0) {
            const int32_t cosine = tt_head_similarity(model, sums, shots, features, length, c).cosine;
            if (*label < 0 || cosine > *score) {
                *label = (int32_t)c;
                *score = cosine;
            }
        }
    }
}
