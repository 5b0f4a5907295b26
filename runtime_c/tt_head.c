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

/* floor(sqrt(value)), bit by bit. */
static uint32_t square_root(uint64_t value)
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

void tt_head_classify(const tt_model *model, const int16_t *sums, const uint16_t *shots, const int8_t *features,
                      int32_t *label, int32_t *score)
{
    const int32_t zero = model->features_zero;
    uint64_t square = 0;
    for (uint32_t i = 0; i < model->features; i++) {
        const int32_t f = features[i] - zero;
        square += (uint32_t)(f * f);
    }
    const int64_t length = square_root(square << 32); /* 16 fraction bits */

    *label = -1;
    *score = 0;
    for (uint32_t c = 0; c < model->classes; c++) {
        if (shots[c] == 0) {
            continue;
        }
        const int16_t *sum = sums + (size_t)c * model->features;
        const int32_t offset = zero * (int32_t)shots[c];
        int64_t dot = 0;
        square = 0;
        for (uint32_t i = 0; i < model->features; i++) {
            const int32_t p = sum[i] - offset; /* |p| <= 255 * TT_MAX_SHOTS < 2^16 */
            dot += p * (features[i] - zero);
            square += (uint64_t)((int64_t)p * p);
        }
        const int64_t class_length = square_root(square << 14); /* 7 fraction bits */
        int32_t similarity = 0;
        if (length != 0 && class_length != 0) {
            /* Multiplications, not shifts: dot may be negative. */
            const int64_t along = dot * (INT64_C(1) << 23) / class_length; /* 16 fraction bits */
            similarity = (int32_t)(along * (INT64_C(1) << TT_SCORE_BITS) / length);
        }
        if (*label < 0 || similarity > *score) {
            *label = (int32_t)c;
            *score = similarity;
        }
    }
}
