/*
 * Every choice that tt_select() can make: all orders of the candidates, and all budgets of pool, saved inputs and MACs at
 * which anything changes. Counts change only where a budget equals a sum of costs, so these sums are all there is to try.
 * The model is called "net" and chooses; its network is replaced by scores. Prints choices tried, different counts.
 */
#include <string.h>

#include "check.h"
#include "net.h"
#include "tt_learning.h"

enum { MOST = 4, CHANNELS = 64, SUMS = 512, POOL = 1 << 16, FOUR = 4 };

static _Alignas(TT_ALIGNMENT) uint8_t arena[NET_REGION0_BYTES];
static net_session session;
static tt_model model;
static tt_learning learning;
static tt_selection selection;
static tt_candidate candidates[MOST];
static uint32_t rank[MOST]; /* 0: visited first */
static uint32_t sums[3][SUMS], sum_counts[3];
static uint8_t seen[SUMS];
static uint32_t tried;

/* --- In place of the network ----------------------------------------------------------------- */

static void nothing(uint8_t *const regions[])
{
    (void)regions;
}

static void nothing_kept(uint8_t *const regions[], int32_t keep)
{
    (void)regions, (void)keep;
}

/* Layers by rank, whatever their channels; these in an order that depends on the layer. */
static void invent_scores(uint8_t *const regions[], tt_rate *rate, const tt_fisher *fisher, int32_t exponent)
{
    (void)regions, (void)rate, (void)exponent;
    for (uint32_t i = 0; i < selection.count; i++) {
        const tt_candidate *c = &candidates[i];
        for (uint32_t channel = 0; channel < c->channels; channel++) {
            const float unequal = 1.0f + (float)((channel * 5 + i) % 7) / 16.0f;
            fisher->scores[c->first + channel] = unequal / (float)c->channels / (float)(1u << 2 * rank[i]);
        }
    }
}

static tt_status any_sample(void *user, uint32_t index, int32_t epoch, int8_t *input, int32_t *label)
{
    (void)user, (void)index, (void)epoch, (void)input;
    *label = 0;
    return TT_OK;
}

/* --- What a choice must be ------------------------------------------------------------------- */

static uint32_t cost(const tt_candidate *c, int budget)
{
    return budget == 0 ? (uint32_t)sizeof(uint16_t) + c->delta_bytes : budget == 1 ? c->saved_bytes : c->macs;
}

static void take(uint8_t *taken, uint32_t from, uint32_t bytes, uint32_t begin, uint32_t end)
{
    CHECK(bytes == 0 || (begin <= from && from + bytes <= end));
    for (uint32_t i = 0; i < bytes; i++) {
        CHECK(taken[from + i] == 0);
        taken[from + i] = 1;
    }
}

static void check_channels(const tt_candidate *c, const uint16_t *list, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        CHECK(list[i] < c->channels && (i == 0 || list[i] > list[i - 1]));
    }
}

static void check_choice(const uint32_t budgets[3])
{
    static uint8_t pool[POOL], saved[POOL];
    memset(pool, 0, selection.pool_end);
    memset(saved, 0, selection.saved_bytes);
    const uint8_t *const learnt = arena + model.state_offset;
    uint32_t left[3] = { budgets[0], budgets[1], budgets[2] };
    uint32_t lists = 0, outcome = 0;
    for (uint32_t turn = 0; turn < selection.count; turn++) { /* the lists lie in the order of the visits */
        uint32_t i = 0;
        while (rank[i] != turn) {
            i++;
        }
        const tt_candidate *const c = &candidates[i];
        const tt_selected *const s = (const tt_selected *)(const void *)(learnt + c->selected);
        uint32_t count = c->limit / FOUR;
        for (int b = 0; b < 3; b++) {
            const uint32_t have = left[b] / (FOUR * cost(c, b));
            count = have < count ? have : count;
        }
        count *= FOUR;
        CHECK(s->chosen == (int32_t)count);
        for (int b = 0; b < 3; b++) {
            left[b] -= count * cost(c, b);
        }
        check_channels(c, (const uint16_t *)(const void *)(learnt + s->channels), count);
        CHECK(s->channels % sizeof(uint16_t) == 0 && s->deltas % sizeof(int16_t) == 0);
        /* A list may not reach the scores that the next one is made from. */
        take(pool, s->channels, count * (uint32_t)sizeof(uint16_t), selection.pool, selection.table);
        take(saved, s->saved, count * c->saved_bytes, 0, selection.saved_bytes);
        lists += count * (uint32_t)sizeof(uint16_t);
    }
    for (uint32_t i = 0; i < selection.count; i++) {
        const tt_candidate *const c = &candidates[i];
        const tt_selected *const s = (const tt_selected *)(const void *)(learnt + c->selected);
        const uint32_t bytes = (uint32_t)s->chosen * c->delta_bytes;
        take(pool, s->deltas, bytes, selection.pool + lists, selection.pool_end);
        for (uint32_t at = 0; at < bytes; at++) {
            CHECK(learnt[s->deltas + at] == 0);
        }
        outcome = outcome * (c->limit / FOUR + 1u) + (uint32_t)s->chosen / FOUR;
    }
    seen[outcome] = 1;
}

static void choose_within(const uint32_t budgets[3])
{
    const tt_samples samples = { 1, any_sample, NULL };
    /* 0 would mean all there is; 1 is less than any channel costs. */
    const tt_select_options options = { .selector = TT_SELECT_LAYER_SCORE, .samples = 1,
                                        .pool_bytes = budgets[0] + (budgets[0] == 0),
                                        .macs = budgets[2] + (budgets[2] == 0) };
    selection.saved_bytes = budgets[1];
    memset(arena + model.state_offset, 0xA5, model.state_bytes);
    CHECK(tt_select(&session.core, &options, &samples) == TT_OK);
    check_choice(budgets);
    tried++;
}

/* --- All of them ----------------------------------------------------------------------------- */

/* Costs of every combination of counts, each once; those above what there is say no more than that. */
static void list_sums(const uint32_t most[3])
{
    uint32_t combinations = 1;
    for (uint32_t i = 0; i < selection.count; i++) {
        combinations *= candidates[i].limit / FOUR + 1u;
    }
    CHECK(combinations <= SUMS);
    for (int b = 0; b < 3; b++) {
        for (uint32_t n = 0; n < combinations; n++) {
            uint32_t rest = n, sum = 0, earlier = 0;
            for (uint32_t i = 0; i < selection.count; i++) {
                const uint32_t counts = candidates[i].limit / FOUR + 1u;
                sum += rest % counts * FOUR * cost(&candidates[i], b);
                rest /= counts;
            }
            sum = sum < most[b] ? sum : most[b];
            while (earlier < sum_counts[b] && sums[b][earlier] != sum) {
                earlier++;
            }
            sums[b][earlier] = sum;
            sum_counts[b] += earlier == sum_counts[b];
        }
    }
}

static void try_all_budgets(void)
{
    for (uint32_t pool = 0; pool < sum_counts[0]; pool++) {
        for (uint32_t saved = 0; saved < sum_counts[1]; saved++) {
            for (uint32_t macs = 0; macs < sum_counts[2]; macs++) {
                choose_within((const uint32_t[3]) { sums[0][pool], sums[1][saved], sums[2][macs] });
            }
        }
    }
}

static void try_all_orders(uint32_t from)
{
    if (from == selection.count) {
        try_all_budgets();
        return;
    }
    for (uint32_t i = from; i < selection.count; i++) {
        const uint32_t mine = rank[from];
        rank[from] = rank[i], rank[i] = mine;
        try_all_orders(from + 1);
        rank[i] = rank[from], rank[from] = mine;
    }
}

int main(void)
{
    CHECK(net_init(&session, arena, sizeof arena) == TT_OK);
    model = *session.core.model;
    learning = *model.learning;
    selection = *learning.selection;
    CHECK(selection.count <= MOST && model.state_bytes <= POOL && selection.saved_bytes <= POOL);
    memcpy(candidates, selection.candidates, selection.count * sizeof *candidates);
    for (uint32_t i = 0; i < selection.count; i++) {
        candidates[i].cost = 1.0f;
        rank[i] = i;
    }
    selection.candidates = candidates;
    learning.selection = &selection;
    learning.run_frozen = nothing;
    learning.run_trained = nothing_kept;
    learning.backward = invent_scores;
    model.learning = &learning;
    session.core.model = &model;
    list_sums((const uint32_t[3]) { selection.pool_end - selection.pool, selection.saved_bytes, UINT32_MAX });
    try_all_orders(0);
    uint32_t outcomes = 0;
    for (uint32_t i = 0; i < SUMS; i++) {
        outcomes += seen[i];
    }
    printf("%u choices, %u different\n", (unsigned)tried, (unsigned)outcomes);
    check_end("ok");
}
