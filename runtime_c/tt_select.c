#include "tt_select.h"

#include "tt_choice.h"

static tt_status score_by_fisher(tt_session *s, uint32_t most, tt_source *from, float *scores)
{
    const uint32_t count = from->samples->count, measured = most < count ? most : count;
    tt_status status = TT_OK;
    for (uint32_t group = 0; status == TT_OK && group < s->model->learning->selection->groups; group++) {
        const tt_fisher fisher = { scores, (int32_t)group };
        for (uint32_t i = 0; status == TT_OK && i < measured; i++) {
            status = tt_measure(s, from, tt_measured_sample(i, measured, count), &fisher);
        }
        from->measured = measured;
    }
    return status;
}

static tt_selector selector_of(const tt_session *s, const tt_select_options *options)
{
    return options->selector == TT_SELECT_DEFAULT ? s->model->learning->selection->selector : options->selector;
}

tt_status tt_select_enrolled(tt_session *s, const tt_select_options *options, tt_source *from)
{
    const tt_selection *const selection = s->model->learning->selection;
    uint8_t *const state = s->regions[s->model->state_region] + s->model->state_offset;
    float *const scores = (float *)(void *)(state + selection->table);
    const tt_selector selector = selector_of(s, options);
    tt_status status = TT_OK;
    if (selector == TT_SELECT_RANDOM) {
        tt_score_at_random(selection, scores, options->seed);
    } else if (selector == TT_SELECT_L2) {
        tt_score_by_norm(selection, scores);
    } else {
        status = score_by_fisher(s, options->samples == 0 ? TT_FISHER_SAMPLES : options->samples, from, scores);
    }
    if (status != TT_OK) { /* as if nothing had been selected */
        memset(state, 0, s->model->state_bytes);
        return status;
    }
    const uint32_t end = selector == TT_SELECT_FISHER_RESAMPLE ? selection->table : selection->pool_end;
    const uint32_t pool = end - selection->pool, asked = options->pool_bytes;
    const tt_budget left = {
        asked == 0 || asked > pool ? pool : asked,
        selection->saved_bytes,
        options->macs == 0 ? selection->macs : options->macs,
    };
    tt_choose(selection, state, left, selector);
    if (selector == TT_SELECT_FISHER_RESAMPLE) {
        tt_clamp_scores(scores, selection->scores);
    }
    return TT_OK;
}

tt_status tt_select(tt_session *s, const tt_select_options *options, const tt_samples *samples)
{
    if (s == NULL || s->model == NULL || options == NULL || samples == NULL || samples->get == NULL ||
        samples->count == 0 || (uint32_t)options->selector > TT_SELECT_FISHER_RESAMPLE) {
        return TT_ERR_ARGUMENT;
    }
    if (s->model->learning == NULL || s->model->learning->selection == NULL) {
        return TT_ERR_POLICY;
    }
    tt_status status = tt_check_samples(s, samples);
    if (status != TT_OK) {
        return status;
    }
    (void)tt_unlearn(s);
    tt_source from = { samples, NULL, 0, 0 };
    if (tt_selector_measures(selector_of(s, options))) {
        status = tt_enroll_all(s, &from);
    }
    if (status == TT_OK) {
        status = tt_select_enrolled(s, options, &from);
    }
    if (status != TT_OK) {
        (void)tt_unlearn(s);
    }
    return status;
}
