"""Handler for ``slirp``, QEMU's user-mode network.

::

    slirp   = (2a socket)* 00 [ip_id:be16, from version 2] [bootp x 16, from version 3]
    socket  = so_urgc:be32 hosts iptos:u8 emu:u8 type:u8 state:be32 buffer buffer tcp
    hosts   = host host                                             version 4
            | faddr:be32 laddr:be32 fport:be16 lport:be16           before
    host    = family:be16 [address:be32 port:be16, if family is 2]
    buffer  = sb_cc:be32 sb_datalen:be32 woff:be32 roff:be32 data:sb_datalen
    bootp   = allocated:be16 macaddr:6

A socket is saved only if it ends in QEMU itself (guestfwd to a chardev).
Addresses and ports are the host's integers that hold network order, so on a
little-endian host they come out reversed; they are read back that way.

Source: libslirp 4.7.0 src/state.c (slirp_state_save; version 4 since 2016),
src/tcp_var.h, src/bootp.h (NB_BOOTP_CLIENTS); QEMU net/slirp.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import construct as c

from cprformats.fields import Kind
from cprformats.layout import read_record
from cprformats.reader import Reader

if TYPE_CHECKING:
    from cprformats.migration.device import Decoder

__all__ = ["slirp"]

_SOCKET = 42
_BOOTP_CLIENTS = 16
_FAMILY_INET = 2

_TCP = c.Struct(
    "t_state" / c.Int16sb,
    "t_timer" / c.Array(4, c.Int16sb),
    "t_rxtshift" / c.Int16sb,
    "t_rxtcur" / c.Int16sb,
    "t_dupacks" / c.Int16sb,
    "t_maxseg" / c.Int16ub,
    "t_force" / c.Int8ub,
    "t_flags" / c.Int16ub,
    "snd_una" / c.Int32ub,
    "snd_nxt" / c.Int32ub,
    "snd_up" / c.Int32ub,
    "snd_wl1" / c.Int32ub,
    "snd_wl2" / c.Int32ub,
    "iss" / c.Int32ub,
    "snd_wnd" / c.Int32ub,
    "rcv_wnd" / c.Int32ub,
    "rcv_nxt" / c.Int32ub,
    "rcv_up" / c.Int32ub,
    "irs" / c.Int32ub,
    "rcv_adv" / c.Int32ub,
    "snd_max" / c.Int32ub,
    "snd_cwnd" / c.Int32ub,
    "snd_ssthresh" / c.Int32ub,
    "t_idle" / c.Int16sb,
    "t_rtt" / c.Int16sb,
    "t_rtseq" / c.Int32ub,
    "t_srtt" / c.Int16sb,
    "t_rttvar" / c.Int16sb,
    "t_rttmin" / c.Int16ub,
    "max_sndwnd" / c.Int32ub,
    "t_oobflags" / c.Int8ub,
    "t_iobc" / c.Int8ub,
    "t_softerror" / c.Int16sb,
    "snd_scale" / c.Int8ub,
    "rcv_scale" / c.Int8ub,
    "request_r_scale" / c.Int8ub,
    "requested_s_scale" / c.Int8ub,
    "ts_recent" / c.Int32ub,
    "ts_recent_age" / c.Int32ub,
    "last_ack_sent" / c.Int32ub,
)


def slirp(decoder: Decoder, reader: Reader) -> None:
    """Read the whole state; versions 1 to 4."""
    version = decoder.section.version
    index = 0
    while reader.number(f"more[{index}]", "u8"):
        decoder.count(reader)
        with reader.group(f"socket[{index}]", "slirp-socket"):
            _socket(reader, version)
        index += 1
    if version >= 2:
        reader.number("ip_id", "u16be")
    for client in range(_BOOTP_CLIENTS if version >= 3 else 0):
        with reader.group(f"bootp_clients[{client}]", "slirp_bootpclient"):
            reader.number("allocated", "u16be")
            reader.take("macaddr", "u8[6]")


def _socket(reader: Reader, version: int) -> None:
    reader.number("so_urgc", "u32be")
    if version >= 4:
        for name in ("fhost", "lhost"):
            with reader.group(name, "slirp-socket-addr"):
                if reader.number("family", "u16be") == _FAMILY_INET:
                    reader.number("address", "u32le", meaning="ipv4")
                    reader.number("port", "u16le")
    else:
        for name in ("so_faddr", "so_laddr"):
            reader.number(name, "u32le", meaning="ipv4")
        for name in ("so_fport", "so_lport"):
            reader.number(name, "u16le")
    for name in ("so_iptos", "so_emu", "so_type"):
        reader.number(name, "u8")
    reader.number("so_state", "i32be")
    for name in ("so_rcv", "so_snd"):
        with reader.group(name, "slirp-sbuf"):
            _buffer(reader)
    read_record(reader, "so_tcpcb", _TCP)


def _buffer(reader: Reader) -> None:
    reader.number("sb_cc", "u32be")
    size = reader.number("sb_datalen", "u32be")
    reader.number("woff", "u32be")
    reader.number("roff", "u32be")
    reader.blob("sb_data", size, kind=Kind.BUFFER)
