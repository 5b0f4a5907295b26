/*
 * The flash of STM32F74x and STM32F75x (1 MB, one bank) as storage for saved states: registers only, no HAL.
 *
 *     #include "net_storage.h" // written by the compiler where the board's flash has room for two slots
 *     #include "stm32f7_flash.h"
 *
 *     static const stm32f7_flash slots = {NET_SLOTS_ADDRESS, NET_SLOTS_BYTES};
 *     const tt_storage storage = stm32f7_flash_storage(&slots, NET_SLOT_BYTES, NET_ERASE_BYTES);
 *     if (net_load(&session, &storage) != TT_OK) {
 *         // a new device, or another model: the session begins in factory state
 *     }
 *
 * Needs a supply of 2.7 to 3.6 V, for 32 bits are programmed at once. Erasing a sector of 256 KB takes up to 4 s, and no
 * code runs from this flash meanwhile, interrupts neither: feed the watchdog before net_save().
 */
#ifndef STM32F7_FLASH_H
#define STM32F7_FLASH_H

#include "tinytrain_storage.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct stm32f7_flash {
    uint32_t address; /* of the first slot: where a sector begins */
    uint32_t bytes;   /* of both slots: nothing else is erased or programmed */
} stm32f7_flash;

/* slots must live as long as the storage is used. */
tt_storage stm32f7_flash_storage(const stm32f7_flash *slots, uint32_t slot_bytes, uint32_t erase_bytes);

#ifdef __cplusplus
}
#endif

#endif
