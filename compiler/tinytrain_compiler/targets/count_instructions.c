/*
 * QEMU plugin (API version 1): exact instruction counts between two marker instructions.
 *
 * Arguments: out=FILE      one line per marked stretch, its number of executed instructions
 *            profile=FILE  optional: address and count of every instruction executed inside the stretches
 *
 * Markers are Thumb moves of a register to itself: mov r10, r10 begins a stretch, mov r11, r11 ends it. Neither is
 * counted. An instruction that an IT block skips counts, as it does on the core.
 *
 * Blocks are counted as a whole by one inline addition at their start. That is exact, because a block leaves early only
 * by a fault, and a fault ends the run. A block that holds a marker is counted instruction by instruction.
 *
 * Debian does not ship QEMU's header, so what is used of it is declared here.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- QEMU's plugin API, version 1 ------------------------------------------------------------ */

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { QEMU_PLUGIN_CB_NO_REGS = 0 };
enum { QEMU_PLUGIN_INLINE_ADD_U64 = 0 };

typedef void (*translate_fn)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*execute_fn)(unsigned int vcpu, void *user);
typedef void (*exit_fn)(qemu_plugin_id_t, void *user);

void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translate_fn);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int op, void *counter, uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_inline(struct qemu_plugin_insn *, int op, void *counter, uint64_t add);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *, execute_fn, int flags, void *user);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t, exit_fn, void *user);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
void qemu_plugin_outs(const char *);

EXPORT int qemu_plugin_version = 1;

/* --- Counters -------------------------------------------------------------------------------- */

#define MOV_R10_R10 0x46D2u
#define MOV_R11_R11 0x46DBu
#define CODE_BYTES (4u << 20) /* the profile covers this much from address 0; beyond it one counter serves all */
#define SLOTS (CODE_BYTES / 2 + 1)

static uint64_t executed;
static uint64_t at_begin;
static bool inside;
static FILE *out;
static const char *profile_path;
static uint64_t *current;   /* per halfword address, since the last begin marker */
static uint64_t *collected; /* summed over all stretches */
static size_t used_slots;

static void fail(const char *message)
{
    qemu_plugin_outs(message);
    fprintf(stderr, "%s", message);
    fflush(stderr);
    _Exit(70);
}

static void begin(unsigned int vcpu, void *user)
{
    (void)vcpu, (void)user;
    if (inside) {
        fail("count_instructions: a stretch begins inside another\n");
    }
    inside = true;
    if (current) {
        memset(current, 0, used_slots * sizeof *current);
    }
    at_begin = executed;
}

static void end(unsigned int vcpu, void *user)
{
    (void)vcpu, (void)user;
    if (!inside) {
        fail("count_instructions: a stretch ends that did not begin\n");
    }
    inside = false;
    fprintf(out, "%" PRIu64 "\n", executed - at_begin);
    fflush(out); /* a run that is cut off keeps what it has counted */
    if (current) {
        for (size_t i = 0; i < used_slots; ++i) {
            collected[i] += current[i];
        }
    }
}

/* --- Translation ----------------------------------------------------------------------------- */

static uint16_t marker(const struct qemu_plugin_insn *insn)
{
    uint16_t code;
    if (qemu_plugin_insn_size(insn) != sizeof code) {
        return 0;
    }
    memcpy(&code, qemu_plugin_insn_data(insn), sizeof code); /* both little endian */
    return code == MOV_R10_R10 || code == MOV_R11_R11 ? code : 0;
}

static void count_address(struct qemu_plugin_insn *insn)
{
    const uint64_t address = qemu_plugin_insn_vaddr(insn);
    const size_t slot = address < CODE_BYTES ? (size_t)(address / 2) : SLOTS - 1;
    if (slot >= used_slots) {
        used_slots = slot + 1;
    }
    qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &current[slot], 1);
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    const size_t count = qemu_plugin_tb_n_insns(tb);
    bool marked = false;
    for (size_t i = 0; i < count; ++i) {
        marked = marked || marker(qemu_plugin_tb_get_insn(tb, i));
    }
    if (!marked) {
        qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &executed, count);
    }
    for (size_t i = 0; i < count && (marked || current); ++i) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint16_t mark = marker(insn);
        if (mark) {
            qemu_plugin_register_vcpu_insn_exec_cb(insn, mark == MOV_R10_R10 ? begin : end, QEMU_PLUGIN_CB_NO_REGS, NULL);
            continue;
        }
        if (marked) {
            qemu_plugin_register_vcpu_insn_exec_inline(insn, QEMU_PLUGIN_INLINE_ADD_U64, &executed, 1);
        }
        if (current) {
            count_address(insn);
        }
    }
}

/* --- Start and end --------------------------------------------------------------------------- */

static void finish(qemu_plugin_id_t id, void *user)
{
    (void)id, (void)user;
    fclose(out);
    if (!profile_path) {
        return;
    }
    FILE *file = fopen(profile_path, "w");
    if (!file) {
        fail("count_instructions: the profile cannot be written\n");
    }
    for (size_t i = 0; i < used_slots; ++i) {
        if (collected[i]) {
            fprintf(file, "%zu %" PRIu64 "\n", 2 * i, collected[i]);
        }
    }
    fclose(file);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; ++i) {
        if (strncmp(argv[i], "out=", 4) == 0) {
            out = fopen(argv[i] + 4, "w");
        } else if (strncmp(argv[i], "profile=", 8) == 0) {
            profile_path = strdup(argv[i] + 8); /* argv does not outlive this call */
            current = calloc(SLOTS, sizeof *current);
            collected = calloc(SLOTS, sizeof *collected);
        }
    }
    if (!out || (profile_path && (!current || !collected))) {
        fprintf(stderr, "count_instructions: no out=FILE that can be written\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, finish, NULL);
    return 0;
}
