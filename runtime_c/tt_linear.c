#include "tt_linear.h"

#include "tt_math.h"

int64_t tt_linear_unit(const tt_session *s, const int8_t *features)
{
    int64_t sum = 0;
    int64_t count = 0;
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            sum += tt_head_project(s, features, c).class_length * (1 << 9) / s->classes.shots[c];
            count++;
        }
    }
    return count == 0 ? 0 : sum / count;
}

/* along: what the class's weights make of the embedding, 16 fraction bits. */
static int64_t scaled_logit(int64_t along, int64_t unit)
{
    if (unit == 0) {
        return 0;
    }
    const int64_t logit = along * (TT_LINEAR_SCALE * TT_LINEAR_ONE) / unit;
    return logit > TT_LINEAR_LOGIT_MAX ? TT_LINEAR_LOGIT_MAX
                                       : logit < -TT_LINEAR_LOGIT_MAX ? -TT_LINEAR_LOGIT_MAX : logit;
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
    return scaled_logit(on_class.along + (sum * (1 << 16) >> tt_linear_bits(s->model)), unit);
}

/* Which classes an answer is chosen from. */
typedef enum choice {
    WITHOUT_DELTAS, /* all, by their means alone, as before any training */
    WITH_DELTAS,    /* all */
    TRAINED         /* those that a training has moved, with deltas */
} choice;

/* Whether a training has moved the class's weights. */
static int32_t is_trained(const tt_session *s, uint32_t label)
{
    const int16_t *const deltas = tt_linear_deltas(s, label);
    for (uint32_t i = 0; i <= s->model->features; i++) {
        if (deltas[i] != 0) {
            return 1;
        }
    }
    return 0;
}

/* Twice over the classes: for the best, then for the sum of the exponentials. There is no room to keep logits. */
static void answer(const tt_session *s, const int8_t *features, choice from, int32_t *label, int32_t *score)
{
    const int64_t unit = tt_linear_unit(s, features);
    int64_t top = 0;
    int64_t total = 0;
    *label = -1;
    *score = 0;
    for (int32_t pass = 0; pass < 2; pass++) {
        for (uint32_t c = 0; c < s->classes.count; c++) {
            if (s->classes.shots[c] != 0 && (from != TRAINED || is_trained(s, c))) {
                const tt_projection on_class = tt_head_project(s, features, c);
                const int64_t logit = from == WITHOUT_DELTAS ? scaled_logit(on_class.along, unit)
                                                             : tt_linear_logit(s, features, c, on_class, unit);
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

void tt_linear_classify(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score)
{
    uint32_t trained = 0, added = 0; /* classes that the last training moved, and classes enrolled since */
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            const int32_t moved = is_trained(s, c);
            trained += moved != 0;
            added += moved == 0;
        }
    }
    if (trained == 0 || added == 0) {
        answer(s, features, WITH_DELTAS, label, score);
        return;
    }
    /* Weights that never met an added class say nothing about it: means decide whether it is one. */
    answer(s, features, WITHOUT_DELTAS, label, score);
    if (is_trained(s, (uint32_t)*label)) {
        answer(s, features, TRAINED, label, score);
    }
}
