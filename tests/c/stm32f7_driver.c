/* The example driver for STM32F7's flash, on a simulated controller: saves and loads the model called "net". */
#define STM32F7_FLASH_ACCESS "stm32f7_controller.h"
#include "stm32f7_flash.c"

#include "net.h"
#include "net_storage.h"

static _Alignas(TT_ALIGNMENT) uint8_t arena[NET_REGION0_BYTES];
static net_session session;

static void start(void)
{
    memset(arena, 0xC3, sizeof arena);
    CHECK(net_init(&session, arena, sizeof arena) == TT_OK);
}

static void enroll(int32_t label)
{
    net_selftest_input(net_input(&session));
    CHECK(net_enroll(&session, net_input(&session), label) == TT_OK);
}

int main(void)
{
    const stm32f7_flash slots = {NET_SLOTS_ADDRESS, NET_SLOTS_BYTES};
    const tt_storage storage = stm32f7_flash_storage(&slots, NET_SLOT_BYTES, NET_ERASE_BYTES);
    CHECK(NET_SLOTS_ADDRESS == 0x08080000u && NET_SLOTS_BYTES == 0x80000u && NET_ERASE_BYTES == 0x40000u);
    controller_reset();
    start();
    CHECK(net_load(&session, &storage) != TT_OK); /* what the factory left there is no state */

    for (uint16_t shots = 1; shots <= 5; shots++) {
        enroll(1);
        CHECK(net_save(&session, &storage) == TT_OK);
        CHECK((controller.cr & 0x80000000u) != 0u); /* locked again */
        start();
        CHECK(net_load(&session, &storage) == TT_OK);
        CHECK(session.shots[1] == shots);
    }

    CHECK(controller.erased_sectors == (1u << 6 | 1u << 7));
    for (uint32_t i = 0; i < NET_SLOTS_ADDRESS - ORIGIN; i++) {
        CHECK(controller.bytes[i] == 0x5A); /* the image */
    }

    /* A write-protected sector: the error is told, does not stay, and the last state is still there. */
    enroll(1);
    controller.refuse = 1;
    CHECK(net_save(&session, &storage) == TT_ERR_STORAGE);
    start();
    CHECK(net_load(&session, &storage) == TT_OK && session.shots[1] == 5);
    controller.sr = 0x10u; /* somebody else's */
    CHECK(net_save(&session, &storage) == TT_OK);

    /* Nothing outside the slots is touched, whatever is asked for. */
    const uint32_t before = controller.erased_sectors;
    CHECK(storage.erase(storage.user, NET_SLOTS_BYTES) != 0);
    CHECK(storage.erase(storage.user, 0u - 0x40000u) != 0);
    CHECK(storage.erase(storage.user, 0x8000u) != 0);
    CHECK(storage.program(storage.user, NET_SLOTS_BYTES - 32u, &session, 64u) != 0);
    CHECK(controller.erased_sectors == before);
    const stm32f7_flash part = {NET_SLOTS_ADDRESS, 0x8000u}; /* less than its sector */
    const tt_storage wrong = stm32f7_flash_storage(&part, 0x4000u, 0x4000u);
    CHECK(wrong.erase(wrong.user, 0u) != 0);
    check_end("ok");
}
