"""Formats that ffmpeg may recognize in a file.

Left out are text, subtitles, images, raw video, modules and other instructions for synthesizers, and playlists and
scripts, which name other files.
"""

from __future__ import annotations

_NAMES = """
    3dostr 4xm aa aac aax ac3 ac4 ace acm act adp ads adx aea afc aiff aix alp amr amrnb amrwb apac apc ape apm
    argo_asf argo_brp argo_cvg asf asf_o ast au avi avr bethsoftvid bfi bfstm bink binka boa bonk brstm c93 caf cdxl
    codec2 daud dcstr dhav dsf dsicin dss dts dtshd dv dxa ea eac3 epaf film_cpk flac flv fsb fwse gdv genh gsm gxf
    hca hcom iamf iff ilbc ipmovie ircam iss ivr jv kux kvag laf lc3 live_flv lmlm4 loas lxf matroska mca mgsts mlp
    mlv mm mmf mods moflex mov mp3 mpc mpc8 mpeg mpegts msf mtaf mtv musx mv mvi mxf mxg nistsphere nsv nut nuv ogg
    oma osq paf pmp psxstr pva pvf qcp qoa redspark rka rl2 rm roq rpl rsd rso s337m sbc sdr2 sds sdx shn siff smjpeg
    smk smush sol sox spdif svag svs swf tak thp tiertexseq tmv truehd tta ty usm vag vividas vivo vmd voc vpk vqf
    w64 wady wav wavarc wc3movie wsaud wsd wsvqa wtv wv wve xa xmd xmv xvag xwma yop
"""
FORMATS = ",".join(_NAMES.split())
"""Names of ffmpeg's demuxers, as its option `-format_whitelist` takes them."""
