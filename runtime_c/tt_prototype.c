#include "tt_prototype.h"

void tt_prototype_classify(const tt_session *s, const int8_t *features, int32_t *label, int32_t *score)
{
    int64_t length = 0; /* of the embedding: computed once a class is found */
    *label = -1;
    *score = 0;
    for (uint32_t c = 0; c < s->classes.count; c++) {
        if (s->classes.shots[c] != 0) {
            length = *label < 0 ? tt_head_length(s->model, features) : length;
            const int32_t cosine = tt_cosine(tt_head_project(s, features, c), length);
            if (*label < 0 || cosine > *score) {
                *label = (int32_t)c;
                *score = cosine;
            }
        }
    }
}
