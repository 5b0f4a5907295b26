#include "tt_linear_loss.h"

#include "tt_linear.h"
#include "tt_math.h"

enum { HEAD_RATE_MULTIPLIER = 8 }; /* learning rate of the head over that of layers */

/* Logits become errors a[c] = p[c] - [c = label], 15 fraction bits, in place. Returns 1 - p[label]. */
static int32_t errors_of(const tt_session *s, int32_t label, int64_t *a)
{
    int64_t top = -TT_LINEAR_LOGIT_MAX;
    int64_t total = 0;
    int32_t error = TT_LINEAR_ONE;
    for (uint32_t c = 0; c < s->classes.count; c++) {
        top = s->classes.shots[c] != 0 && a[c] > top ? a[c] : top;
    }
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            a[c] = tt_exp_negative(top - a[c]);
            total += a[c];
        }
    }
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            a[c] = a[c] * TT_LINEAR_ONE / total;
            if ((int32_t)c == label) {
                error = TT_LINEAR_ONE - (int32_t)a[c];
                a[c] -= TT_LINEAR_ONE;
            }
        }
    }
    return error;
}

/* sum_c a[c] W[c]: 39 fraction bits, then mantissas. over_length: a[c] over the length of the class's sum. */
static int32_t gradient_of(const tt_session *s, const int64_t *a, const int64_t *over_length, int16_t *gradient)
{
    const tt_model *const model = s->model;
    const int32_t delta_shift = 24 - tt_linear_bits(model);
    int32_t shift = 0;
    for (int32_t pass = 0; pass < 2; pass++) { /* for the largest magnitude, then for the mantissas */
        uint64_t largest = 0;
        for (uint32_t i = 0; i < model->features; i++) {
            int64_t value = 0;
            for (uint32_t c = 0; c < s->classes.count; c++) {
                if (s->classes.shots[c] != 0) {
                    const int32_t sum = s->classes.sums[(size_t)c * model->features + i];
                    const int32_t p = sum - model->features_zero * s->classes.shots[c];
                    value += over_length[c] * p + a[c] * tt_linear_deltas(s, c)[i] * (INT64_C(1) << delta_shift);
                }
            }
            const uint64_t size = (uint64_t)(value < 0 ? -value : value);
            largest = size > largest ? size : largest;
            gradient[i] = tt_mantissa(value, shift);
        }
        shift = tt_headroom(largest, TT_MANTISSA_BITS);
    }
    return shift - 39;
}

/* A step of one class; x: what its weights were multiplied with. */
static void move(const tt_session *s, tt_rate *rate, const int8_t *features, uint32_t label, int32_t a,
                 tt_update update)
{
    int16_t *const deltas = tt_linear_deltas(s, label);
    const uint32_t count = s->model->features;
    for (uint32_t i = 0; i <= count; i++) {
        const int32_t x = i == count ? TT_LINEAR_CONSTANT : features[i] - s->model->features_zero;
        const int64_t moved = deltas[i] - tt_move(a * x, update);
        rate->saturated += moved > INT16_MAX || moved < -INT16_MAX;
        deltas[i] = (int16_t)(moved > INT16_MAX ? INT16_MAX : moved < -INT16_MAX ? -INT16_MAX : moved);
    }
}

static int32_t learn(const tt_session *s, tt_rate *rate, const int8_t *features, int32_t label, int16_t *gradient,
                     int32_t *exponent, int64_t *scratch)
{
    const tt_model *const model = s->model;
    int64_t *const a = scratch;
    int64_t *const over_length = scratch + s->classes.count;
    const int64_t unit = tt_linear_unit(s, features);
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            const tt_projection on_class = tt_head_project(s, features, c);
            a[c] = tt_linear_logit(s, features, c, on_class, unit);
            over_length[c] = on_class.class_length;
        }
    }
    const int32_t error = errors_of(s, label, a);
    uint32_t enrolled = 0;
    uint64_t squares = 0;
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            over_length[c] = over_length[c] == 0 ? 0 : a[c] * (INT64_C(1) << 31) / over_length[c];
            squares += (uint64_t)(a[c] * a[c]);
            enrolled++;
        }
    }
    *exponent = gradient_of(s, a, over_length, gradient);
    if (rate == NULL) {
        return error;
    }

    uint64_t inputs = TT_LINEAR_CONSTANT * TT_LINEAR_CONSTANT;
    for (uint32_t i = 0; i < model->features; i++) {
        const int32_t x = features[i] - model->features_zero;
        inputs += (uint32_t)(x * x);
    }
    /* The weights start as unit vectors, one a class. */
    const float scale = (float)(HEAD_RATE_MULTIPLIER << tt_linear_bits(model)) / 65536.0f;
    const float norm = (float)tt_square_root((uint64_t)enrolled << 32) * scale;
    tt_running *const running = (tt_running *)tt_head_state(s);
    const tt_step step = tt_step_size(rate, running, norm);
    const tt_update update = { step.fraction, 30 - step.exponent };
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            move(s, rate, features, c, (int32_t)a[c], update);
        }
    }
    tt_running_add(running, squares * (inputs >> 8), 8);
    return error;
}

const tt_head_learning tt_linear_learning = { .learn = learn, .recomputes = 0 };
