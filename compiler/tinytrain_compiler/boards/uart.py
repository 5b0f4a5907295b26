"""Serial ports: the value of each kind's baud-rate register, and which values fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

TOLERANCE = 0.02  # of the rate; ten bits then still arrive in time


@dataclass(frozen=True)
class UartKind:
    """A driver. Its template is templates/firmware/uart/<name>.c.j2."""

    register: str
    exact: Callable[[float], float]  # clocks per bit -> the register's value
    low: int
    high: int
    step: int = 1  # the value is a multiple of it


UARTS: Mapping[str, UartKind] = {
    "cmsdk": UartKind("BAUDDIV", lambda clocks: clocks, 16, 0xFFFFF),
    "nrf-uarte": UartKind("BAUDRATE", lambda clocks: 2**32 / clocks, 0x0004F000, 0x10000000, step=0x1000),
    # 64ths of 16 clocks; UARTIBRD is the whole part.
    "pl011": UartKind("UARTIBRD", lambda clocks: clocks * 64 / 16, 64, 0xFFFF * 64),
    # 256ths of a clock; the port's clock is three times the rate or more.
    "stm32-lpuart": UartKind("BRR", lambda clocks: clocks * 256, 0x300, 0xFFFFF),
    "stm32-usart-v1": UartKind("BRR", lambda clocks: clocks, 16, 0xFFFF),
    "stm32-usart-v2": UartKind("BRR", lambda clocks: clocks, 16, 0xFFFF),
}


def divider(kind: str, clock_hz: int, baud: int) -> int:
    """The value of the port's baud-rate register(s). ValueError where it does not fit them or misses the rate."""
    uart = UARTS[kind]
    exact = uart.exact(clock_hz / baud)
    value = uart.step * round(exact / uart.step)
    if not uart.low <= value <= uart.high:
        raise ValueError(
            f"cannot be {baud}: from a clock of {clock_hz} Hz {uart.register} would be {value:#x}, "
            f"it holds {uart.low:#x} to {uart.high:#x}"
        )
    if abs(value / exact - 1) > TOLERANCE:
        raise ValueError(f"cannot be {baud}: it is missed by more than {TOLERANCE:.0%} from a {clock_hz} Hz clock")
    return value
