#include "tt_head.h"

tt_status tt_head_enroll(const tt_session *s, const int8_t *features, int32_t label)
{
    const tt_model *const model = s->model;
    if (label < 0 || (uint32_t)label >= model->classes) {
        return TT_ERR_LABEL;
    }
    if (s->shots[label] >= TT_MAX_SHOTS) {
        return TT_ERR_FULL;
    }
    int16_t *sum = s->sums + (size_t)label * model->features;
    for (uint32_t i = 0; i < model->features; i++) {
        sum[i] = (int16_t)(sum[i] + features[i]);
    }
    s->shots[label]++;
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

tt_projection tt_head_project(const tt_session *s, const int8_t *features, uint32_t label)
{
    const uint32_t count = s->model->features;
    const int16_t *sum = s->sums + (size_t)label * count;
    const int32_t zero = s->model->features_zero;
    const int32_t offset = zero * (int32_t)s->shots[label];
    int64_t dot = 0;
    uint64_t square = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int32_t p = sum[i] - offset; /* |p| <= 255 * TT_MAX_SHOTS < 2^16 */
        dot += p * (features[i] - zero);
        square += (uint64_t)((int64_t)p * p);
    }
    tt_projection result = { 0, tt_square_root(square << 14) };
    if (result.class_length != 0) {
        result.along = dot * (INT64_C(1) << 23) / result.class_length; /* not a shift: dot may be negative */
    }
    return result;
}

/* 2^-x by a polynomial, the whole part by a shift. */
int32_t tt_exp_negative(int64_t d)
{
    const int64_t t = (d * 47274) >> 15; /* log2(e) */
    const int32_t x = (int32_t)(t & 32767);
    if (t >> 15 > 15) {
        return 0;
    }
    int32_t e = 315;
    e = 1819 - ((x * e) >> 15);
    e = 7872 - ((x * e) >> 15);
    e = 22713 - ((x * e) >> 15);
    e = 32768 - ((x * e) >> 15);
    return e >> (t >> 15);
}
