#include "tt_linear.h"

#include "tt_math.h"

int64_t tt_linear_unit(const tt_session *s, const int8_t *features)
{
    int64_t sum = 0;
    int64_t count = 0;
    for (uint32_t c = 0; c < s->model->classes; c++) {
        if (s->shots[c] != 0) {
            sum += tt_head_project(s, features, c).class_length * (1 << 9) / s->shots[c];
            count++;
        }
    }
    return count == 0 ? 0 : sum / count;
}

int64_t tt_linear_logit(const tt_session *s, const int8_t *features, uint32_t label, tt_projection on_class,
                        int64_t unit)
{
    const uint32_t count = s->model->features;
    const int16_t *const deltas = tt_linear_deltas(s, label);
    int64_t sum = deltas[count] * TT_LINEAR_CONSTANT;
    for (uint32_t i = 0; i < count; i++) {
        sum += deltas[i] * (features[i] - s->model->features_zero);
    }
    if (unit == 0) {
        return 0;
    }
    const int64_t along = on_class.along + (sum * (1 << 16) >> tt_linear_bits(s->model));
    const int64_t logit = along * (TT_LINEAR_SCALE * TT_LINEAR_ONE) / unit;
    return logit > TT_LINEAR_LOGIT_MAX ? TT_LINEAR_LOGIT_MAX : logit < -TT_LINEAR_LOGIT_MAX ? -TT_LINEAR_LOGIT_MAX : logit;
}

void tt_linear_classify(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score)
{
    const int64_t unit = tt_linear_unit(s, features);
    int64_t top = 0;
    int64_t total = 0;
    *label = -1;
    *score = 0;
    /* Twice over the classes: for the best, then for the sum of the exponentials. There is no room to keep logits. */
    for (int32_t pass = 0; pass < 2; pass++) {
        for (uint32_t c = 0; c < s->model->classes; c++) {
            if (s->shots[c] != 0) {
                const int64_t logit = tt_linear_logit(s, features, c, tt_head_project(s, features, c), unit);
                if (pass == 1) {
                    total += tt_exp_negative(top - logit);
                } else if (*label < 0 || logit > top) {
                    *label = (int32_t)c;
                    top = logit;
                }
            }
        }
    }
    if (*label >= 0) {
        *score = (int32_t)((int64_t)TT_LINEAR_ONE * TT_LINEAR_ONE / total);
    }
}
