#include "tt_check.h"

#include "tt_learning.h"
#include "tt_stored.h"

/* Entries that are read at once. */
enum { PIECE = 16 };

static tt_status verdict(int32_t possible)
{
    return possible ? TT_OK : TT_ERR_CORRUPT;
}

/* Whether a float is neither negative nor infinite nor no number. */
static int32_t is_size(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits < 0x7F800000u;
}

/* --- Layers ---------------------------------------------------------------------------------- */

static tt_status check_running(const tt_stored *stored, uint32_t at, uint32_t count)
{
    tt_status status = TT_OK;
    for (uint32_t i = 0; status == TT_OK && i < count; i++) {
        tt_running running;
        status = tt_stored_read(stored, at + i * (uint32_t)sizeof running, &running, sizeof running);
        if (status == TT_OK) {
            status = verdict(is_size(running.mean) && running.seen >= 0);
        }
    }
    return status;
}

/* Larger bias deltas would overflow accumulators. Weight deltas may be any bytes: weights saturate. */
static tt_status check_layer(const tt_stored *stored, const tt_layer *layer)
{
    const uint32_t outputs = (uint32_t)layer->params->outputs;
    const int32_t limit = layer->params->bias_limit;
    tt_status status = check_running(stored, layer->running, 2);
    for (uint32_t done = 0; status == TT_OK && done < outputs; done += PIECE) {
        int32_t biases[PIECE];
        const uint32_t count = outputs - done < PIECE ? outputs - done : PIECE;
        status = tt_stored_read(stored, layer->bias + done * (uint32_t)sizeof *biases, biases,
                                count * (uint32_t)sizeof *biases);
        for (uint32_t i = 0; status == TT_OK && i < count; i++) {
            status = verdict(biases[i] <= limit && biases[i] >= -limit);
        }
    }
    return status;
}

/* --- Choice ---------------------------------------------------------------------------------- */

static tt_status read_selected(const tt_stored *stored, const tt_candidate *c, tt_selected *selected)
{
    return tt_stored_read(stored, c->selected, selected, sizeof *selected);
}

static int32_t is_empty(const tt_selected *s)
{
    return s->channels == 0 && s->deltas == 0 && s->saved == 0 && s->chosen == 0 && s->scores == 0 &&
           s->weight_norm == 0.0f;
}

static uint32_t list_bytes(const tt_selected *s)
{
    return (uint32_t)s->chosen * (uint32_t)sizeof(uint16_t);
}

/* Whether bytes `a`, `a_bytes` long, and `b` have none in common. */
static int32_t are_apart(uint32_t a, uint32_t a_bytes, uint32_t b, uint32_t b_bytes)
{
    return a_bytes == 0 || b_bytes == 0 || a + a_bytes <= b || b + b_bytes <= a;
}

/* All lists' bytes; whether any record is not empty. Counts are within their limits afterwards. */
static tt_status measure_lists(const tt_stored *stored, const tt_selection *selection, uint32_t *bytes, int32_t *chosen)
{
    tt_status status = TT_OK;
    *bytes = 0;
    *chosen = 0;
    for (uint32_t i = 0; status == TT_OK && i < selection->count; i++) {
        const tt_candidate *const c = &selection->candidates[i];
        tt_selected s;
        status = read_selected(stored, c, &s);
        if (status == TT_OK) {
            status = verdict(s.chosen >= 0 && s.chosen <= (int32_t)c->limit && s.chosen % 4 == 0 &&
                             is_size(s.weight_norm));
            *bytes += status == TT_OK ? list_bytes(&s) : 0;
            *chosen |= !is_empty(&s);
        }
    }
    return status;
}

/* Channels exist, and ascend where they are not drawn anew. */
static tt_status check_list(const tt_stored *stored, const tt_candidate *c, const tt_selected *s)
{
    const uint32_t chosen = (uint32_t)s->chosen;
    tt_status status = TT_OK;
    uint32_t next = 0; /* the lowest channel that may follow */
    for (uint32_t done = 0; status == TT_OK && done < chosen; done += PIECE) {
        uint16_t list[PIECE];
        const uint32_t count = chosen - done < PIECE ? chosen - done : PIECE;
        status = tt_stored_read(stored, s->channels + done * (uint32_t)sizeof *list, list,
                                count * (uint32_t)sizeof *list);
        for (uint32_t i = 0; status == TT_OK && i < count; i++) {
            status = verdict(list[i] < c->channels && list[i] >= next);
            next = s->scores == 0 ? list[i] + 1u : 0;
        }
    }
    return status;
}

/* Scores that channels are drawn anew by: as tt_clamp_scores() leaves them. */
static tt_status check_scores(const tt_stored *stored, const tt_selection *selection)
{
    const float most = (float)(UINT64_C(1) << 50) * (float)(UINT64_C(1) << 50);
    tt_status status = TT_OK;
    for (uint32_t done = 0; status == TT_OK && done < selection->scores; done += PIECE) {
        float scores[PIECE];
        const uint32_t left = selection->scores - done, count = left < PIECE ? left : PIECE;
        status = tt_stored_read(stored, selection->table + done * (uint32_t)sizeof *scores, scores,
                                count * (uint32_t)sizeof *scores);
        for (uint32_t i = 0; status == TT_OK && i < count; i++) {
            status = verdict(scores[i] >= 1.0f / most && scores[i] <= most); /* not of what is no number either */
        }
    }
    return status;
}

/* Records i and those before it lie apart: their lists in the pool, their inputs among the saved ones. */
static tt_status check_apart(const tt_stored *stored, const tt_selection *selection, uint32_t i, const tt_selected *s)
{
    const uint32_t saved_bytes = selection->candidates[i].saved_bytes;
    tt_status status = TT_OK;
    for (uint32_t j = 0; status == TT_OK && j < i; j++) {
        const tt_candidate *const c = &selection->candidates[j];
        tt_selected other;
        status = read_selected(stored, c, &other);
        if (status == TT_OK) {
            status = verdict(are_apart(s->channels, list_bytes(s), other.channels, list_bytes(&other)) &&
                             are_apart(s->saved, (uint32_t)s->chosen * saved_bytes, other.saved,
                                       (uint32_t)other.chosen * c->saved_bytes));
        }
    }
    return status;
}

/* Lists fill the pool from its start on, in any order; behind them lie the deltas, in the candidates' order. */
static tt_status check_choice(const tt_stored *stored, const tt_selection *selection)
{
    uint32_t lists;
    int32_t chosen, stays = 0;
    tt_status status = measure_lists(stored, selection, &lists, &chosen);
    if (status != TT_OK || !chosen) {
        return status;
    }
    if (lists > selection->table - selection->pool) {
        return TT_ERR_CORRUPT;
    }
    uint32_t delta = selection->pool + lists;
    for (uint32_t i = 0; status == TT_OK && i < selection->count; i++) {
        const tt_candidate *const c = &selection->candidates[i];
        tt_selected s;
        status = read_selected(stored, c, &s);
        if (status != TT_OK) {
            return status;
        }
        stays = i == 0 ? s.scores != 0 : stays;
        const uint32_t end = stays ? selection->table : selection->pool_end;
        const uint32_t delta_bytes = (uint32_t)s.chosen * c->delta_bytes;
        const uint32_t scores = stays ? selection->table + c->first * (uint32_t)sizeof(float) : 0;
        const int32_t list_inside = s.channels >= selection->pool && s.channels - selection->pool <= lists &&
                                    lists - (s.channels - selection->pool) >= list_bytes(&s) && s.channels % 2 == 0;
        const int32_t saved_inside = s.saved <= selection->saved_bytes &&
                                     s.saved % 4 == 0 &&
                                     selection->saved_bytes - s.saved >= (uint32_t)s.chosen * c->saved_bytes;
        const int32_t deltas_inside = s.deltas == delta && delta <= end && end - delta >= delta_bytes;
        status = verdict(list_inside && saved_inside && deltas_inside && s.scores == scores);
        if (status == TT_OK) {
            status = check_apart(stored, selection, i, &s);
        }
        if (status == TT_OK) {
            status = check_list(stored, c, &s);
        }
        delta += delta_bytes;
    }
    return status == TT_OK && stays ? check_scores(stored, selection) : status;
}

tt_status tt_check(const tt_model *model, const tt_stored *stored)
{
    const tt_learning *const l = model->learning;
    tt_status status = TT_OK;
    for (uint32_t i = 0; status == TT_OK && i < l->layer_count; i++) {
        status = check_layer(stored, &l->layers[i]);
    }
    if (status == TT_OK && model->head_bytes != 0) {
        status = check_running(stored, model->head_offset - model->state_offset, 1);
    }
    if (status == TT_OK && l->selection != NULL) {
        status = check_choice(stored, l->selection);
    }
    return status;
}
