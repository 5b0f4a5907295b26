#include "tinytrain.h"

#include <string.h>

#include "tt_head.h"

static int32_t has_class_memory(const tt_model *model, const tt_classes *classes)
{
    const int32_t trains = model->learning != NULL;
    return classes->count != 0 && (model->classes == 0 || classes->count <= model->classes) && classes->sums != NULL &&
           classes->shots != NULL && (!trains || (classes->next_sums != NULL && classes->next_shots != NULL));
}

tt_status tt_init(tt_session *s, const tt_model *model, const tt_region *regions, const tt_classes *classes)
{
    if (s == NULL) {
        return TT_ERR_ARGUMENT;
    }
    s->model = NULL;
    if (model == NULL || regions == NULL || classes == NULL || !has_class_memory(model, classes)) {
        return TT_ERR_ARGUMENT;
    }
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
    s->classes = *classes;
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
    result->source = TT_FROM_HEAD;
    s->model->classify(s, features, &result->label, &result->score);
    if (result->label < 0) { /* no class is enrolled */
        result->source = TT_FROM_NETWORK;
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
    memset(s->classes.sums, 0, sizeof(int16_t) * s->classes.count * s->model->features);
    memset(s->classes.shots, 0, sizeof(uint16_t) * s->classes.count);
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
