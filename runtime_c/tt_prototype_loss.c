#include "tt_prototype_loss.h"

#include "tt_math.h"
#include "tt_prototype.h"

static int32_t learn(const tt_session *s, tt_rate *rate, const int8_t *features, int32_t label, int16_t *gradient,
                     int32_t *exponent, int64_t *scratch)
{
    (void)rate;
    const tt_model *const model = s->model;
    const uint16_t *const shots = s->classes.shots;
    const int32_t scale = 10;
    const int32_t one = 1 << 15;
    const int32_t zero = model->features_zero;
    const int64_t length = tt_head_length(model, features);
    int32_t top = INT32_MIN;
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (shots[c] != 0) {
            const tt_projection on_class = tt_head_project(s, features, c);
            const int32_t cosine = tt_cosine(on_class, length);
            scratch[2 * c] = cosine;
            scratch[2 * c + 1] = on_class.class_length;
            top = cosine > top ? cosine : top;
        }
    }
    *exponent = 0;
    if (length == 0) {
        memset(gradient, 0, sizeof *gradient * model->features);
        return one;
    }

    int64_t total = 0;
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (shots[c] != 0) {
            total += tt_exp_negative((int64_t)scale * (top - scratch[2 * c]));
        }
    }
    int64_t along = 0;
    int32_t error = one;
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (shots[c] != 0) {
            const int64_t cosine = scratch[2 * c];
            const int64_t p = ((int64_t)tt_exp_negative(scale * (top - cosine)) << 15) / total;
            int64_t a = p;
            if ((int32_t)c == label) {
                error = one - (int32_t)p;
                a -= one;
            }
            along += a * cosine;
            const int64_t class_length = scratch[2 * c + 1];
            scratch[2 * c] = class_length == 0 ? 0 : a * (INT64_C(1) << 31) / class_length;
        }
    }
    const int64_t toward = (along >> 15) * (INT64_C(1) << 40) / length;
    const int64_t inverse = (INT64_C(1) << 46) / length;

    /* Twice over the embedding: for the largest magnitude, then for the mantissas. */
    int32_t shift = 0;
    for (int32_t pass = 0; pass < 2; pass++) {
        uint64_t largest = 0;
        for (uint32_t i = 0; i < model->features; i++) {
            int64_t sum = 0;
            for (uint32_t c = 0; c < s->classes.count; c++) {
                if (shots[c] != 0) {
                    const int32_t p = s->classes.sums[(size_t)c * model->features + i] - zero * (int32_t)shots[c];
                    sum += scratch[2 * c] * p;
                }
            }
            const int64_t value = ((sum - toward * (features[i] - zero)) >> 16) * inverse;
            if (pass == 0) {
                const uint64_t size = (uint64_t)(value < 0 ? -value : value);
                largest = size > largest ? size : largest;
            } else {
                gradient[i] = tt_mantissa(value, shift);
            }
        }
        if (pass == 0) {
            shift = tt_headroom(largest, TT_MANTISSA_BITS);
        }
    }
    *exponent = shift - 53;
    return error;
}

const tt_head_learning tt_prototype_learning = { .learn = learn, .recomputes = 1 };
