#include "tt_select.h"

#include "tt_head.h"
#include "tt_random.h"
#include "tt_train.h"

void tt_fisher_add(float *scores, const int8_t *x, const int16_t *dx, int32_t pixels, int32_t channels, int32_t zero,
                   int32_t exponent)
{
    const int32_t shift = tt_safe_shift(tt_magnitude(dx, pixels * channels), (uint64_t)pixels * 255);
    for (int32_t c = 0; c < channels; c++) {
        int32_t sum = 0;
        for (int32_t i = c; i < pixels * channels; i += channels) {
            sum += tt_shift_round(dx[i], shift) * (x[i] - zero);
        }
        const float size = (float)(sum < 0 ? -sum : sum);
        scores[c] += tt_scaled(size * size, 2 * (exponent + shift));
    }
}

/* --- Scores ---------------------------------------------------------------------------------- */

/* The sum of input channel c's squared pretrained weights, each output's times its scale's squared fraction. */
static uint64_t squared_weights(const tt_learn_params *p, int32_t c)
{
    const tt_weight_layout *const l = &p->layout;
    const int32_t group = c / l->group_inputs, within = c % l->group_inputs;
    uint64_t total = 0;
    for (int32_t o = 0; o < l->group_outputs; o++) {
        const int8_t *w = p->pretrained->weights + group * l->group_stride + o * l->output_stride + within;
        uint32_t sum = 0;
        for (int32_t tap = 0; tap < l->taps; tap++, w += l->tap_stride) {
            sum += (uint32_t)(*w * *w);
        }
        const int32_t f = p->weight_scales.values[group * l->group_outputs + o];
        total += (uint64_t)sum * (uint32_t)((f * f) >> 14);
    }
    return total;
}

static void score_by_norm(const tt_selection *selection, float *scores)
{
    for (uint32_t i = 0; i < selection->count; i++) {
        const tt_candidate *const c = &selection->candidates[i];
        for (uint32_t channel = 0; channel < c->channels; channel++) {
            scores[c->first + channel] = (float)squared_weights(c->layer, (int32_t)channel);
        }
    }
}

static void score_at_random(const tt_selection *selection, float *scores, uint32_t seed)
{
    uint32_t state = tt_random_start(tt_mix(0, seed));
    for (uint32_t i = 0; i < selection->scores; i++) {
        scores[i] = (float)(tt_random_next(&state) >> 8);
    }
}

static tt_status score_by_fisher(tt_session *s, const tt_select_options *options, const tt_samples *samples,
                                 float *scores)
{
    const uint32_t count = options->samples < samples->count ? options->samples : samples->count;
    for (uint32_t group = 0; group < s->model->learning->selection->groups; group++) {
        const tt_fisher fisher = { scores, (int32_t)group };
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t index = (uint32_t)((uint64_t)i * samples->count / count);
            const tt_status status = tt_measure(s, samples, index, &fisher);
            if (status != TT_OK) {
                return status;
            }
        }
    }
    return TT_OK;
}

/* --- Choice ---------------------------------------------------------------------------------- */

/* Mark of a candidate that is still to be visited. */
#define WAITING (-1)

typedef struct room {
    uint32_t pool, saved, macs;
} room;

static float layer_score(const tt_candidate *c, const float *scores)
{
    float total = 0.0f;
    for (uint32_t i = 0; i < c->channels; i++) {
        total += scores[c->first + i];
    }
    return total * c->cost;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* How many channels of a candidate still fit, in fours. */
static uint32_t affordable(const tt_candidate *c, const room *left)
{
    uint32_t count = least(c->limit, left->pool / ((uint32_t)sizeof(uint16_t) + c->delta_bytes));
    count = least(least(count, left->saved / c->saved_bytes), left->macs / c->macs);
    return count & ~3u;
}

/* The `count` channels with the largest scores, ascending; of equals the lower number. */
static void list_top(uint16_t *list, uint32_t count, const float *scores, uint32_t channels)
{
    uint32_t found = 0;
    for (uint32_t c = 0; c < channels && found < count; c++) {
        uint32_t before = 0; /* channels that come first */
        for (uint32_t other = 0; other < channels && before < count; other++) {
            before += scores[other] > scores[c] || (other < c && scores[other] == scores[c]);
        }
        if (before < count) {
            list[found++] = (uint16_t)c;
        }
    }
}

static float norm_of(const tt_learn_params *p, const uint16_t *list, uint32_t count)
{
    uint64_t total = 0;
    for (uint32_t i = 0; i < count; i++) {
        total += squared_weights(p, list[i]);
    }
    /* 7: half of the 14 bits above; 8: fraction bits of a delta; 15: of the scales */
    return tt_scaled((float)tt_square_root(total), 7 + 8 - 15 + p->weight_scales.exponent);
}

/* Lists first: they may not reach the table that they are made from. Deltas are cleared when it is no longer needed. */
static void choose(const tt_selection *selection, uint8_t *learnt, room left, int32_t by_layer)
{
    const float *const scores = (const float *)(void *)(learnt + selection->table);
    uint32_t list = selection->pool;
    uint32_t saved = 0;
    for (uint32_t i = 0; i < selection->count; i++) {
        ((tt_selected *)(void *)(learnt + selection->candidates[i].selected))->chosen = WAITING;
    }
    for (uint32_t visited = 0; visited < selection->count; visited++) {
        const tt_candidate *best = NULL;
        float best_score = 0.0f;
        for (uint32_t i = 0; i < selection->count; i++) {
            const tt_candidate *const c = &selection->candidates[i];
            if (((const tt_selected *)(void *)(learnt + c->selected))->chosen == WAITING) {
                const float score = by_layer ? layer_score(c, scores) : -(float)i;
                if (best == NULL || score > best_score) {
                    best = c;
                    best_score = score;
                }
            }
        }
        tt_selected *const selected = (tt_selected *)(void *)(learnt + best->selected);
        const uint32_t count = affordable(best, &left);
        uint16_t *const channels = (uint16_t *)(void *)(learnt + list);
        list_top(channels, count, scores + best->first, best->channels);
        selected->channels = list;
        selected->chosen = (int32_t)count;
        selected->weight_norm = norm_of(best->layer, channels, count);
        selected->saved = saved;
        list += count * (uint32_t)sizeof(uint16_t);
        saved += count * best->saved_bytes;
        left.pool -= count * (uint32_t)(sizeof(uint16_t) + best->delta_bytes);
        left.saved -= count * best->saved_bytes;
        left.macs -= count * best->macs;
    }
    uint32_t delta = list;
    for (uint32_t i = 0; i < selection->count; i++) {
        tt_selected *const selected = (tt_selected *)(void *)(learnt + selection->candidates[i].selected);
        selected->deltas = delta;
        delta += (uint32_t)selected->chosen * selection->candidates[i].delta_bytes;
    }
    memset(learnt + list, 0, selection->pool_end - list);
}

tt_status tt_select(tt_session *s, const tt_select_options *options, const tt_samples *samples)
{
    if (s == NULL || s->model == NULL || options == NULL || samples == NULL || samples->get == NULL ||
        samples->count == 0 || options->samples == 0) {
        return TT_ERR_ARGUMENT;
    }
    const tt_learning *const learning = s->model->learning;
    if (learning == NULL || learning->selection == NULL) {
        return TT_ERR_POLICY;
    }
    const tt_selection *const selection = learning->selection;
    uint8_t *const learnt = s->regions[learning->learnt_region] + learning->learnt_offset;
    float *const scores = (float *)(void *)(learnt + selection->table);
    (void)tt_unlearn(s);
    tt_status status = tt_recompute_prototypes(s, samples);
    if (status == TT_OK && options->selector == TT_SELECT_RANDOM) {
        score_at_random(selection, scores, options->seed);
    } else if (status == TT_OK && options->selector == TT_SELECT_L2) {
        score_by_norm(selection, scores);
    } else if (status == TT_OK) {
        status = score_by_fisher(s, options, samples, scores);
    }
    if (status != TT_OK) { /* as if nothing had been selected */
        memset(learnt, 0, learning->learnt_bytes);
        return status;
    }
    const uint32_t pool = selection->pool_end - selection->pool;
    const room left = {
        options->pool_bytes == 0 ? pool : least(options->pool_bytes, pool),
        selection->saved_bytes,
        options->macs == 0 ? UINT32_MAX : options->macs,
    };
    choose(selection, learnt, left, options->selector == TT_SELECT_LAYER_SCORE);
    return TT_OK;
}
