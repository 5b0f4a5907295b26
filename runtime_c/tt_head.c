#include "tt_head.h"

#include "tt_math.h"

tt_status tt_head_enroll(const tt_session *s, const int8_t *features, int32_t label)
{
    const tt_model *const model = s->model;
    if (label < 0 || (uint32_t)label >= s->classes.count) {
        return TT_ERR_LABEL;
    }
    if (s->classes.shots[label] >= TT_MAX_SHOTS) {
        return TT_ERR_FULL;
    }
    int16_t *sum = s->classes.sums + (size_t)label * model->features;
    for (uint32_t i = 0; i < model->features; i++) {
        sum[i] = (int16_t)(sum[i] + features[i]);
    }
    s->classes.shots[label]++;
    return TT_OK;
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
    const int16_t *sum = s->classes.sums + (size_t)label * count;
    const int32_t zero = s->model->features_zero;
    const int32_t offset = zero * (int32_t)s->classes.shots[label];
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
