#include "tt_choice.h"

#include "tt_math.h"
#include "tt_port.h"
#include "tt_random.h"

/* --- Scores ---------------------------------------------------------------------------------- */

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

void tt_score_by_norm(const tt_selection *selection, float *scores)
{
    for (uint32_t i = 0; i < selection->count; i++) {
        const tt_candidate *const c = &selection->candidates[i];
        for (uint32_t channel = 0; channel < c->channels; channel++) {
            scores[c->first + channel] = (float)squared_weights(c->layer, (int32_t)channel);
        }
    }
}

void tt_score_at_random(const tt_selection *selection, float *scores, uint32_t seed)
{
    uint32_t state = tt_random_start(tt_mix(0, seed));
    for (uint32_t i = 0; i < selection->scores; i++) {
        scores[i] = (float)(tt_random_next(&state) >> 8);
    }
}

void tt_clamp_scores(float *scores, uint32_t count)
{
    const float most = (float)(UINT64_C(1) << 50) * (float)(UINT64_C(1) << 50); /* 2^100 */
    for (uint32_t i = 0; i < count; i++) {
        scores[i] = scores[i] > most ? most : scores[i] < 1.0f / most ? 1.0f / most : scores[i];
    }
}

/* --- Choice ---------------------------------------------------------------------------------- */

/* Mark of a candidate that is still to be visited. */
#define WAITING (-1)

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
static uint32_t affordable(const tt_candidate *c, const tt_budget *left)
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

/* Lists first: they may not reach the table that they are made from. Deltas are cleared when it is no longer needed,
 * and end where it begins if it stays. */
void tt_choose(const tt_selection *selection, uint8_t *state, tt_budget left, tt_selector selector)
{
    const int32_t by_layer = selector == TT_SELECT_LAYER_SCORE, stays = selector == TT_SELECT_FISHER_RESAMPLE;
    const float *const scores = (const float *)(void *)(state + selection->table);
    uint32_t list = selection->pool;
    uint32_t saved = 0;
    for (uint32_t i = 0; i < selection->count; i++) {
        ((tt_selected *)(void *)(state + selection->candidates[i].selected))->chosen = WAITING;
    }
    for (uint32_t visited = 0; visited < selection->count; visited++) {
        const tt_candidate *best = NULL;
        float best_score = 0.0f;
        for (uint32_t i = 0; i < selection->count; i++) {
            const tt_candidate *const c = &selection->candidates[i];
            if (((const tt_selected *)(void *)(state + c->selected))->chosen == WAITING) {
                const float score = by_layer ? layer_score(c, scores) : -(float)i;
                if (best == NULL || score > best_score) {
                    best = c;
                    best_score = score;
                }
            }
        }
        tt_selected *const selected = (tt_selected *)(void *)(state + best->selected);
        const uint32_t count = affordable(best, &left);
        uint16_t *const channels = (uint16_t *)(void *)(state + list);
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
        tt_selected *const selected = (tt_selected *)(void *)(state + selection->candidates[i].selected);
        selected->deltas = delta;
        selected->scores = stays ? selection->table + selection->candidates[i].first * (uint32_t)sizeof(float) : 0;
        delta += (uint32_t)selected->chosen * selection->candidates[i].delta_bytes;
    }
    TT_ASSERT(list <= selection->table && delta <= (stays ? selection->table : selection->pool_end));
    memset(state + list, 0, (stays ? selection->table : selection->pool_end) - list);
}

int32_t tt_is_chosen(const tt_selection *selection, const uint8_t *state)
{
    /* Lists lie in the pool, which is not where the state begins: also an empty one's offset is not 0. */
    return ((const tt_selected *)(const void *)(state + selection->candidates[0].selected))->channels != 0;
}

/* --- Channels drawn anew --------------------------------------------------------------------- */

#define VACANT UINT16_MAX

/* Mark `count` channels, by a negative score: one after the other, each with a probability in proportion to its score
 * among those that are left. */
static void draw(float *scores, uint32_t channels, uint32_t count, uint32_t *random)
{
    for (; count > 0; count--) {
        float total = 0.0f;
        for (uint32_t c = 0; c < channels; c++) {
            total += scores[c] > 0.0f ? scores[c] : 0.0f;
        }
        const float point = total * ((float)(tt_random_next(random) >> 8) * (1.0f / 16777216.0f)); /* below total */
        float passed = 0.0f;
        uint32_t drawn = 0;
        for (uint32_t c = 0; c < channels && passed <= point; c++) {
            if (scores[c] > 0.0f) {
                passed += scores[c];
                drawn = c;
            }
        }
        scores[drawn] = -scores[drawn];
    }
}

/* A channel that enters takes the place of one that leaves, and begins with its pretrained weights. */
static void redraw(const tt_candidate *c, tt_selected *selected, uint8_t *state, uint32_t *random)
{
    float *const scores = (float *)(void *)(state + selected->scores);
    uint16_t *const list = (uint16_t *)(void *)(state + selected->channels);
    const tt_weight_layout *const l = &c->layer->layout;
    const uint32_t chosen = (uint32_t)selected->chosen, rows = (uint32_t)(l->group_outputs * l->taps);
    const uint32_t bytes = c->delta_bytes / rows; /* of one delta */
    draw(scores, c->channels, chosen, random);
    for (uint32_t i = 0; i < chosen; i++) {
        float *const score = scores + list[i];
        if (*score < 0.0f) { /* it stays, and needs its mark no longer */
            *score = -*score;
        } else {
            list[i] = VACANT;
        }
    }
    uint32_t place = 0;
    for (uint32_t channel = 0; channel < c->channels; channel++) {
        if (scores[channel] < 0.0f) {
            scores[channel] = -scores[channel];
            while (list[place] != VACANT) {
                place++;
            }
            list[place] = (uint16_t)channel;
            for (uint32_t row = 0; row < rows; row++) {
                memset(state + selected->deltas + (row * chosen + place) * bytes, 0, bytes);
            }
        }
    }
    selected->weight_norm = norm_of(c->layer, list, chosen);
}

void tt_redraw(const tt_selection *selection, uint8_t *state, uint32_t seed, uint32_t epoch)
{
    uint32_t random = tt_random_start(tt_mix(tt_mix(0, seed), epoch));
    for (uint32_t i = 0; i < selection->count; i++) {
        const tt_candidate *const c = &selection->candidates[i];
        tt_selected *const selected = (tt_selected *)(void *)(state + c->selected);
        if (selected->scores != 0) {
            redraw(c, selected, state, &random);
        }
    }
}
