/* Every promise of <model>.h and tinytrain.h that does not depend on the network. The model is called "net". */
#include "net.h"

#include <string.h>

#include "check.h"
#include "tt_prototype.h"

enum { GUARD = 48, JUNK = 0x5A, FEATURES = NET_FEATURES, SUMS = NET_CLASSES * NET_FEATURES };

static struct {
    _Alignas(16) uint8_t before[GUARD], bytes[NET_REGION0_BYTES], after[GUARD];
} arena, other_arena;

static struct {
    uint8_t before[GUARD];
    net_session session;
    uint8_t after[GUARD];
} guarded;

static net_session *const s = &guarded.session;
static int8_t input[NET_INPUT_BYTES + 1], second_input[NET_INPUT_BYTES];
static int8_t output[NET_OUTPUT_BYTES], features[FEATURES];

static void fill(int8_t *bytes, uint32_t seed)
{
    for (uint32_t i = 0; i < NET_INPUT_BYTES; i++) {
        seed = seed * 1664525u + 1013904223u;
        bytes[i] = (int8_t)(seed >> 24);
    }
}

static int is_junk(const uint8_t *bytes)
{
    for (int i = 0; i < GUARD; i++) {
        if (bytes[i] != JUNK) {
            return 0;
        }
    }
    return 1;
}

static int inside(const int8_t *pointer, uint32_t bytes)
{
    const uintptr_t at = (uintptr_t)pointer, begin = (uintptr_t)arena.bytes;
    return at >= begin && at + bytes <= begin + NET_REGION0_BYTES;
}

static uint32_t crc32(uint32_t crc, const int8_t *bytes, uint32_t count)
{
    crc = ~crc;
    for (uint32_t i = 0; i < count; i++) {
        crc ^= (uint8_t)bytes[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1u ? 0xEDB88320u : 0u);
        }
    }
    return ~crc;
}

/* A session that init refused answers with an error, not with a crash. */
static void check_unusable(void)
{
    tt_result result = { .label = 77, .score = 77 };
    CHECK(net_infer(s, input, &result) == TT_ERR_ARGUMENT);
    CHECK(result.label == 77 && result.score == 77);
    CHECK(net_enroll(s, input, 0) == TT_ERR_ARGUMENT);
    CHECK(net_forget(s) == TT_ERR_ARGUMENT);
    CHECK(net_input(s) == NULL);
}

static void init_refuses_what_it_cannot_use(void)
{
    tt_result result;
    CHECK(net_init(NULL, arena.bytes, sizeof arena.bytes) == TT_ERR_ARGUMENT);
    CHECK(net_init(s, NULL, sizeof arena.bytes) == TT_ERR_ARGUMENT);
    check_unusable();
    for (unsigned skew = 1; skew < TT_ALIGNMENT; skew++) {
        CHECK(net_init(s, arena.bytes + skew, sizeof arena.bytes) == TT_ERR_ALIGNMENT);
    }
    check_unusable();
    CHECK(net_init(s, arena.bytes, NET_REGION0_BYTES - 1) == TT_ERR_MEMORY);
    CHECK(net_init(s, arena.bytes, 0) == TT_ERR_MEMORY);
    check_unusable();
    CHECK(net_init(s, arena.bytes, NET_REGION0_BYTES) == TT_OK);
    CHECK(net_init(s, NULL, NET_REGION0_BYTES) == TT_ERR_ARGUMENT); /* a failure ends the session before it */
    check_unusable();
    CHECK(net_infer(NULL, input, &result) == TT_ERR_ARGUMENT);
    CHECK(net_enroll(NULL, input, 0) == TT_ERR_ARGUMENT);
    CHECK(net_forget(NULL) == TT_ERR_ARGUMENT);
    CHECK(net_input(NULL) == NULL);
}

static void the_core_checks_its_own_arguments(void)
{
    static const tt_model none = { .region_count = 0 };
    const tt_region region = { arena.bytes, sizeof arena.bytes };
    static int16_t sums[1];
    static uint16_t shots[1];
    const tt_classes good = { 1, sums, shots, NULL, NULL };
    const tt_classes bad[] = { { 0, sums, shots, NULL, NULL }, { 1, NULL, shots, NULL, NULL },
                               { 1, sums, NULL, NULL, NULL } };
    tt_session core = { 0 };
    CHECK(tt_init(NULL, &none, &region, &good) == TT_ERR_ARGUMENT);
    CHECK(tt_init(&core, NULL, &region, &good) == TT_ERR_ARGUMENT);
    CHECK(tt_init(&core, &none, NULL, &good) == TT_ERR_ARGUMENT);
    CHECK(tt_init(&core, &none, &region, NULL) == TT_ERR_ARGUMENT);
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(tt_init(&core, &none, &region, &bad[i]) == TT_ERR_ARGUMENT);
    }
    CHECK(tt_forget(&core) == TT_ERR_ARGUMENT && tt_forget(NULL) == TT_ERR_ARGUMENT);
    CHECK(tt_input(&core) == NULL && tt_input(NULL) == NULL);
}

static void two_run(uint8_t *const regions[])
{
    memcpy(regions[1], regions[0], 4);
}

static void every_region_is_checked(void)
{
    static const tt_model two = {
        .region_count = 2, .region_bytes = { 16, 32 }, .input_bytes = 4, .output_region = 1, .output_bytes = 4,
        .features_region = 1, .features = 4, .run = two_run,
        .classify = tt_prototype_classify,
    };
    static _Alignas(16) uint8_t first[16], second[48];
    static int16_t sums[4];
    static uint16_t shots[1];
    const tt_classes classes = { 1, sums, shots, NULL, NULL };
    tt_session core;
    tt_region regions[2] = { { first, 16 }, { second, 32 } };
    CHECK(tt_init(&core, &two, regions, &classes) == TT_OK);
    tt_result result;
    CHECK(tt_infer(&core, (const int8_t[]) { 1, -2, 9, 3 }, &result) == TT_OK);
    CHECK(result.output == (const int8_t *)second && result.label == 2 && result.score == 9);
    regions[1].bytes = 31;
    CHECK(tt_init(&core, &two, regions, &classes) == TT_ERR_MEMORY);
    regions[1] = (tt_region) { second + 8, 32 };
    CHECK(tt_init(&core, &two, regions, &classes) == TT_ERR_ALIGNMENT);
    regions[1].data = NULL;
    CHECK(tt_init(&core, &two, regions, &classes) == TT_ERR_ARGUMENT);
    CHECK(tt_input(&core) == NULL);
}

static void before_any_enrolment_the_largest_output_wins(void)
{
    tt_result result;
    CHECK(net_infer(s, input, &result) == TT_OK);
    CHECK(inside(result.output, NET_OUTPUT_BYTES) && inside(result.features, FEATURES));
    int32_t best = 0;
    for (int32_t i = 1; i < NET_OUTPUT_BYTES; i++) {
        best = result.output[i] > result.output[best] ? i : best; /* the lower index on a tie */
    }
    CHECK(result.label == best && result.score == result.output[best] && result.source == TT_FROM_NETWORK);
    memcpy(output, result.output, sizeof output);
    memcpy(features, result.features, sizeof features);
    CHECK(net_infer(s, NULL, &result) == TT_ERR_ARGUMENT);
    CHECK(net_infer(s, input, NULL) == TT_ERR_ARGUMENT);
}

static void the_input_may_lie_anywhere(void)
{
    tt_result result;
    memcpy(net_input(s), input, NET_INPUT_BYTES);
    CHECK(net_infer(s, net_input(s), &result) == TT_OK); /* in place */
    CHECK(memcmp(result.output, output, sizeof output) == 0);

    memmove(input + 1, input, NET_INPUT_BYTES);
    CHECK(net_infer(s, input + 1, &result) == TT_OK); /* not aligned */
    CHECK(memcmp(result.output, output, sizeof output) == 0);
    memmove(input, input + 1, NET_INPUT_BYTES);

    const uint32_t places[] = { 0, 1, NET_REGION0_BYTES - NET_INPUT_BYTES }; /* anywhere in the arena */
    for (unsigned i = 0; i < sizeof places / sizeof places[0]; i++) {
        memcpy(arena.bytes + places[i], input, NET_INPUT_BYTES);
        CHECK(net_infer(s, (int8_t *)arena.bytes + places[i], &result) == TT_OK);
        CHECK(memcmp(result.output, output, sizeof output) == 0);
        CHECK(memcmp(result.features, features, sizeof features) == 0);
    }
}

static void callers_input_is_only_read(void)
{
    tt_result result;
    fill(second_input, 2);
    CHECK(net_infer(s, second_input, &result) == TT_OK);
    int8_t again[NET_INPUT_BYTES];
    fill(again, 2);
    CHECK(memcmp(second_input, again, sizeof again) == 0);
}

static void labels_out_of_range_change_nothing(void)
{
    const int32_t wrong[] = { -1, NET_CLASSES, INT32_MIN, INT32_MAX };
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        CHECK(net_enroll(s, input, wrong[i]) == TT_ERR_LABEL);
    }
    CHECK(net_enroll(s, NULL, 0) == TT_ERR_ARGUMENT);
    for (uint32_t i = 0; i < SUMS; i++) {
        CHECK(s->sums[i] == 0);
    }
    for (uint32_t i = 0; i < NET_CLASSES; i++) {
        CHECK(s->shots[i] == 0);
    }
}

static void enrolled_examples_are_recognised_and_forgotten(void)
{
    tt_result result;
    CHECK(net_enroll(s, input, NET_CLASSES - 1) == TT_OK);
    CHECK(s->shots[NET_CLASSES - 1] == 1);
    for (uint32_t i = 0; i < FEATURES; i++) {
        CHECK(s->sums[(NET_CLASSES - 1) * FEATURES + i] == features[i]);
    }
    CHECK(net_infer(s, input, &result) == TT_OK);
    CHECK(result.label == NET_CLASSES - 1 && result.score > 32760 && result.source == TT_FROM_HEAD);
    CHECK(net_infer(s, second_input, &result) == TT_OK);
    CHECK(result.label == NET_CLASSES - 1); /* the only class there is */
    CHECK(net_enroll(s, second_input, 0) == TT_OK);
    CHECK(net_infer(s, second_input, &result) == TT_OK);
    CHECK(result.label == 0 && result.score > 32760);
    CHECK(net_infer(s, input, &result) == TT_OK);
    CHECK(result.label == NET_CLASSES - 1);
    CHECK(net_forget(s) == TT_OK);
    labels_out_of_range_change_nothing();
    before_any_enrolment_the_largest_output_wins();
}

static void a_class_takes_256_examples_and_no_more(void)
{
    static net_session full;
    for (int i = 0; i < TT_MAX_SHOTS; i++) {
        CHECK(net_enroll(s, i % 2 ? input : second_input, 1) == TT_OK);
    }
    full = *s;
    CHECK(net_enroll(s, input, 1) == TT_ERR_FULL);
    CHECK(memcmp(full.sums, s->sums, sizeof full.sums) == 0 && memcmp(full.shots, s->shots, sizeof full.shots) == 0);
    CHECK(net_enroll(s, input, 0) == TT_OK); /* other classes have room */
    CHECK(net_forget(s) == TT_OK);
    CHECK(net_enroll(s, input, 1) == TT_OK);
    CHECK(net_forget(s) == TT_OK);
}

static void sessions_do_not_disturb_each_other(void)
{
    static net_session other;
    tt_result here, there;
    CHECK(net_init(&other, other_arena.bytes, sizeof other_arena.bytes) == TT_OK);
    CHECK(net_infer(s, input, &here) == TT_OK);
    CHECK(net_enroll(&other, second_input, 1) == TT_OK);
    CHECK(net_infer(&other, second_input, &there) == TT_OK);
    CHECK(there.label == 1 && there.output != here.output);
    CHECK(memcmp(here.output, output, sizeof output) == 0);
    CHECK(net_infer(s, input, &here) == TT_OK);
    CHECK(here.score == here.output[here.label]); /* nothing was enrolled here */
}

static void every_status_has_a_text_of_its_own(void)
{
    for (int a = 1; a >= -14; a--) { /* none of these two */
        const char *text = tt_status_text((tt_status)a);
        CHECK(text != NULL && text[0] != 0);
        for (int b = a - 1; b >= -13; b--) {
            CHECK(strcmp(text, tt_status_text((tt_status)b)) != 0 || (a == 1 && b == -14));
        }
    }
}

static void bring_up_checksum_is_right(void)
{
    tt_result result;
    net_selftest_input(net_input(s));
    CHECK(net_infer(s, net_input(s), &result) == TT_OK);
    const uint32_t crc = crc32(crc32(0, result.output, NET_OUTPUT_BYTES), result.features, FEATURES);
    CHECK(crc == NET_SELFTEST_CRC);
}

int main(void)
{
    memset(&arena, JUNK, sizeof arena);
    memset(&guarded, JUNK, sizeof guarded);
    fill(input, 1);
    init_refuses_what_it_cannot_use();
    the_core_checks_its_own_arguments();
    every_region_is_checked();
    CHECK(net_init(s, arena.bytes, sizeof arena.bytes) == TT_OK);
    before_any_enrolment_the_largest_output_wins();
    the_input_may_lie_anywhere();
    callers_input_is_only_read();
    labels_out_of_range_change_nothing();
    enrolled_examples_are_recognised_and_forgotten();
    a_class_takes_256_examples_and_no_more();
    sessions_do_not_disturb_each_other();
    bring_up_checksum_is_right();
    every_status_has_a_text_of_its_own();
    CHECK(is_junk(arena.before) && is_junk(arena.after) && is_junk(guarded.before) && is_junk(guarded.after));
    check_end("ok");
}
