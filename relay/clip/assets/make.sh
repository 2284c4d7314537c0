#!/bin/sh
# Makes the built-in picture of `relay demo`: eclipse.ts (H.264 + AAC) and eclipse.webm (VP9 + Opus).
#
# Everything comes from ffmpeg's own sources: the sky, sun, moon and corona are one `geq` expression, the clock
# is drawn on top, the sound is `aevalsrc`. Nothing is downloaded and nobody else's work is in it.
#
# Needs Debian 12's packages: ffmpeg fonts-dejavu-core. Takes about two minutes. Run it in this directory:
#     ./make.sh
#
# Why these numbers:
# - 9.6 s is 240 pictures at 25/s, 450 AAC frames of 1,024 samples and 480 Opus packets of 20 ms at 48 kHz, so
#   that sound and picture end together and a loop has neither a gap nor an overlap. 220 and 330 Hz close their
#   waves in 9.6 s.
# - A key frame every 24 pictures (0.96 s): a newcomer waits less than a second for one.
# - Constrained quality with a cap, one thread and `bitexact`: two runs on one ffmpeg give the same bytes, and
#   both files together stay under 1 MiB.
set -eu
cd "$(dirname "$0")"

SECONDS_LONG=9.6
WORK=$(mktemp -d)
trap 'rm -rf "$WORK"' EXIT
PICTURE=$WORK/picture.mkv
# The sun: centre 240,112, radius 60. The moon: radius 63, moving by the cube of time, so that it lingers at totality.
# st(0) moon's offset in x; st(1) distance of the centres; st(2) daylight 0..1; st(3) totality 0..1;
# st(4) distance from the sun's centre; st(5) inside the moon; st(6) inside the sun; st(7) glow; st(8) corona; st(9) star.
COMMON="st(0,150*pow(2*T/${SECONDS_LONG}-1,3));\
st(1,hypot(ld(0),ld(0)/5));\
st(2,pow(clip((ld(1)-2)/75,0,1),0.6));\
st(3,1-clip((ld(1)-1)/6,0,1));\
st(4,hypot(X-240,Y-112));\
st(5,clip(63.5-hypot(X-240-ld(0),Y-112-ld(0)/5),0,1));\
st(6,clip(60.5-ld(4),0,1));\
st(7,(0.25+0.75*ld(2))*exp(-max(ld(4)-60,0)/20));\
st(8,ld(3)*exp(-max(ld(4)-60,0)/(26+12*cos(2*atan2(Y-112,X-240)))) * (0.82+0.12*cos(7*atan2(Y-112,X-240)+1)+0.06*cos(17*atan2(Y-112,X-240))));\
st(9,ld(3)*lt(mod(abs(sin(X*12.9898+Y*78.233)*43758.5453),1),0.0007)*140);"
HILL="gt(Y,226+9*sin(X/53)+5*sin(X/19+1))"
# channel NIGHT DAY_TOP DAY_BOTTOM HORIZON SUN GLOW CORONA GROUND: one colour plane
channel() {
    echo "${COMMON}st(2,$1*(1-ld(2))+ld(2)*($2+($3-$2)*Y/270)+$4*(1-ld(2))*pow(Y/270,6)+ld(9));\
if(${HILL},$8+ld(2)/9,\
min(max(ld(6)*(1-ld(5))*$5,(ld(2)+(1-ld(5)*max(ld(6),ld(3)))*max(ld(7)*$6*(1-ld(3)),ld(8)*$7))*(1-0.85*ld(5)*max(ld(6),ld(3)))),255))"
}
R=$(channel 8 58 150 150 255 210 235 7)
G=$(channel 11 112 190 78 240 190 238 8)
B=$(channel 30 190 226 40 196 130 250 11)

CLOCK="drawtext=font='DejaVu Sans':text='TOTALITY':x=16:y=238:fontsize=20:fontcolor=white@0.9,\
drawtext=font='DejaVu Sans Mono':text='%{eif\\:t\\:d\\:2}.%{eif\\:mod(t*25\\,25)*4\\:d\\:2}':x=w-tw-16:y=240:fontsize=18:fontcolor=white@0.9"
# A bar that fills from left to right once per round: shows at a glance that the picture moves.
BAR="drawbox=x=0:y=266:w=480:h=4:color=black@0.5:t=fill[a];color=c=orange:s=480x4:r=25[b];[a][b]overlay=x='-480+480*t/${SECONDS_LONG}':y=266:shortest=1"
# A quiet fifth that swells at totality, and twelve soft ticks.
SOUND="aevalsrc='0.10*sin(2*PI*220*t)*(0.4+0.6*sin(PI*t/${SECONDS_LONG}))+0.08*sin(2*PI*330*t)*pow(sin(PI*t/${SECONDS_LONG}),4)+0.18*sin(2*PI*880*t)*exp(-40*mod(t,0.8))':s=48000:c=mono"
# One packet less than 9.6 s: the encoders add one for their own delay.
AAC_SOUND="$SOUND,atrim=end_sample=459776"
OPUS_SOUND="$SOUND,atrim=end_sample=459840"

# The picture once, without loss, so that both files show the same.
ffmpeg -v error -y -f lavfi -i "color=c=black:s=480x270:r=25,format=gbrp" \
    -frames:v 240 -filter_complex "[0:v]geq=r='$R':g='$G':b='$B',format=yuv444p,$CLOCK,$BAR,format=yuv420p" \
    -c:v ffv1 "$PICTURE"

BITEXACT="-fflags +bitexact -flags:v +bitexact -flags:a +bitexact -map_metadata -1"
ffmpeg -v error -y -i "$PICTURE" -f lavfi -i "$AAC_SOUND" -map 0:v -map 1:a \
    -c:v libx264 -threads 1 -profile:v main -preset veryslow -tune animation -bf 0 -crf 26 -maxrate 400k -bufsize 400k \
    -g 24 -keyint_min 24 -sc_threshold 0 \
    -c:a aac -b:a 40k $BITEXACT \
    -f mpegts -pes_payload_size 0 -metadata service_name=Eclipse -metadata service_provider=Totality eclipse.ts

ffmpeg -v error -y -i "$PICTURE" -f lavfi -i "$OPUS_SOUND" -map 0:v -map 1:a \
    -c:v libvpx-vp9 -threads 1 -row-mt 0 -deadline good -cpu-used 1 -lag-in-frames 0 -auto-alt-ref 0 -crf 34 -b:v 260k \
    -g 24 -keyint_min 24 \
    -c:a libopus -b:a 32k -application audio -frame_duration 20 $BITEXACT \
    -f webm -live 1 -cluster_time_limit 960 eclipse.webm

ls -l eclipse.ts eclipse.webm
