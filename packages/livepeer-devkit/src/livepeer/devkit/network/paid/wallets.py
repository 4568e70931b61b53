"""Wallets of a network without a chain: an address, a deposit, a reserve, and signatures of the right size.

Real signatures are ECDSA over secp256k1, of which a payment has up to a hundred; the libraries that make
them in no time are not to be had for every Python. So here a signature is a keyed hash: the signers and the
orchestrator share the wallets' secrets, where a real orchestrator recovers the address from the signature.
Clients, who pass signatures on and never look into them, see 65 bytes, and a wrong one is refused as on the
real network. For the same reason SHA3-256 stands where Ethereum has Keccak-256.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass

from livepeer.trickle.errors import ConfigurationError

__all__ = ["ACCOUNTS", "EMPTY_HASH", "NOBODY", "Wallet", "account", "address_of", "hash256", "shown"]

ACCOUNTS = (  # of the mnemonic "test test … junk" that every development chain has, checksummed
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
    "0x14dC79964da2C08b23698B3D3cc7Ca32193d9955",
    "0x23618e81E3f5cdF7f54C3d65f7FBc0aBf5B21E8f",
    "0xa0Ee7A142d267C1f36714E4a8F75612F20a79720",
)
NOBODY = bytes(20)
"""The address of who gives none."""

EMPTY_HASH = bytes.fromhex("c5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470")
"""Keccak-256 of nothing: a payment is for an empty segment."""

_SHOWN = {bytes.fromhex(account[2:]): account for account in ACCOUNTS}


@dataclass
class Wallet:
    """A wallet as the chain and its owner know it.

    Args:
        address: 20 bytes.
        secret: What it signs with, in hexadecimal digits.
        deposit: What winning tickets are paid from, in wei.
        reserve: What stands for them when the deposit is gone, in wei.
    """

    address: bytes
    secret: str
    deposit: int = 10**18
    reserve: int = 10**18

    def sign(self, message: bytes) -> bytes:
        """The wallet's signature: 65 bytes, of which the last is 27 or 28."""
        made = hmac.digest(bytes.fromhex(self.secret), message, hashlib.sha512)
        return made + bytes([27 + (made[0] & 1)])

    def sign_text(self, text: str) -> str:
        """Its signature of a text, in hexadecimal digits behind ``0x``."""
        return f"0x{self.sign(hash256(text.encode())).hex()}"

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature is this wallet's, of this message."""
        return hmac.compare_digest(self.sign(message), signature)


def hash256(data: bytes) -> bytes:
    """A hash of 32 bytes."""
    return hashlib.sha3_256(data).digest()


def shown(address: bytes) -> str:
    """An address as Ethereum's libraries write it."""
    return _SHOWN.get(address, f"0x{address.hex()}")


def address_of(text: str) -> bytes:
    """The address that a text names, with or without ``0x``. Raises `ValueError`."""
    digits = text[2:] if text[:2] in ("0x", "0X") else text
    if len(digits) != 40 or not digits.isalnum():
        raise ValueError(text)
    return bytes.fromhex(digits)


def account(number: int) -> bytes:
    """The address of a wallet to be made: the orchestrator's is number 0, the signers' follow."""
    if number >= len(ACCOUNTS):
        raise ConfigurationError(f"A network has at most {len(ACCOUNTS) - 1} signers.")
    return bytes.fromhex(ACCOUNTS[number][2:])
