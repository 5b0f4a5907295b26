#include "tinytrain.h"

#include <string.h>

#include "tt_head.h"

tt_status tt_init(tt_session *s, const tt_model *model, const tt_region *regions, int16_t *sums, uint16_t *shots)
{
    if (s == NULL || model == NULL || regions == NULL || sums == NULL || shots == NULL) {
        return TT_ERR_ARGUMENT;
    }
    s->model = NULL;
    for (uint32_t i = 0; i < model->region_count; i++) {
        if (regions[i].data == NULL) {
            return TT_ERR_ARGUMENT;
        }
        if ((uintptr_t)regions[i].data % TT_ALIGNMENT != 0) {
            return TT_ERR_ALIGNMENT;
        }
        if (regions[i].bytes < model->region_bytes[i]) {
            return TT_ERR_MEMORY;
        }
        s->regions[i] = regions[i].data;
    }
    s->sums = sums;
    s->shots = shots;
    s->model = model;
    return tt_unlearn(s);
}

int8_t *tt_input(const tt_session *s)
{
    if (s == NULL || s->model == NULL) {
        return NULL;
    }
    return (int8_t *)(s->regions[s->model->input_region] + s->model->input_offset);
}

/* Run the network; the embedding's and the output's addresses are fixed by the plan. */
static tt_status run(const tt_session *s, const int8_t *input, const int8_t **output, const int8_t **features)
{
    if (s == NULL || s->model == NULL || input == NULL) {
        return TT_ERR_ARGUMENT;
    }
    const tt_model *model = s->model;
    int8_t *inside = tt_input(s);
    if (input != inside) {
        memmove(inside, input, model->input_bytes); /* the caller's may overlap the arena */
    }
    model->run(s->regions);
    *output = (const int8_t *)(s->regions[model->output_region] + model->output_offset);
    *features = (const int8_t *)(s->regions[model->features_region] + model->features_offset);
    return TT_OK;
}

tt_status tt_infer(tt_session *s, const int8_t *input, tt_result *result)
{
    if (result == NULL) {
        return TT_ERR_ARGUMENT;
    }
    const int8_t *output;
    const int8_t *features;
    const tt_status status = run(s, input, &output, &features);
    if (status != TT_OK) {
        return status;
    }
    result->output = output;
    result->features = features;
    s->model->classify(s, features, &result->label, &result->score);
    if (result->label < 0) { /* nothing enrolled: the network's own classes */
        result->label = 0;
        for (uint32_t i = 1; i < s->model->output_bytes; i++) {
            if (output[i] > output[result->label]) {
                result->label = (int32_t)i;
            }
        }
        result->score = output[result->label];
    }
    return TT_OK;
}

tt_status tt_enroll(tt_session *s, const int8_t *input, int32_t label)
{
    const int8_t *output;
    const int8_t *features;
    const tt_status status = run(s, input, &output, &features);
    return status != TT_OK ? status : tt_head_enroll(s, features, label);
}

tt_status tt_forget(tt_session *s)
{
    if (s == NULL || s->model == NULL) {
        return TT_ERR_ARGUMENT;
    }
    memset(s->sums, 0, sizeof(int16_t) * s->model->classes * s->model->features);
    memset(s->shots, 0, sizeof(uint16_t) * s->model->classes);
    if (s->model->head_bytes != 0) {
        memset(tt_head_state(s), 0, s->model->head_bytes);
    }
    return TT_OK;
}

tt_status tt_unlearn(tt_session *s)
{
    if (s == NULL || s->model == NULL) {
        return TT_ERR_ARGUMENT;
    }
    const tt_model *const model = s->model;
    if (model->state_bytes != 0) {
        memset(s->regions[model->state_region] + model->state_offset, 0, model->state_bytes);
    }
    return tt_forget(s);
}
