// SPDX-License-Identifier: Apache-2.0
#include "report_parts.h"

namespace conclave::analyze {

// Colours: runs c0-c6 after Okabe and Ito (2008), a palette for all common kinds of colour vision; layers
// l0-l5 one scale of lightness; heat h0-h10 blue - neutral - orange, interpolated in OKLab.
const char* report_style() {
  return R"(:root {
  --paper: #fdfcfa; --ink: #1d1f23; --soft: #5d6268; --faint: #8d9299; --rule: #e3e0da; --grid: #ece9e3;
  --chip: #f2efe9; --code: #f6f4ef;
  --c0: #0a5f9e; --c1: #c4560a; --c2: #08785a; --c3: #a34d83; --c4: #3c94c4; --c5: #a47a00; --c6: #565b62;
  --l0: #8fc1a9; --l1: #5aa392; --l2: #29827f; --l3: #195c70; --l4: #1b3c5e; --l5: #1c1f4a;
  --h0: #1d5591; --h1: #4579ad; --h2: #6b9dc8; --h3: #96bdda; --h4: #c4d6e2; --h5: #f1efe9; --h6: #f0d1b8;
  --h7: #edb385; --h8: #de905a; --h9: #c66b37; --h10: #ad4409; --on-strong: #ffffff; --on-weak: #24272b;
  --sans: Inter, "Segoe UI", system-ui, -apple-system, "Helvetica Neue", "Noto Sans", Arial, sans-serif;
  --serif: Charter, "Bitstream Charter", "Source Serif 4", "Noto Serif", Georgia, serif;
  --mono: ui-monospace, "SF Mono", "Cascadia Mono", "Noto Sans Mono", "DejaVu Sans Mono", monospace;
}
@media (prefers-color-scheme: dark) { :root {
  --paper: #16181c; --ink: #e8e6e1; --soft: #a8abb0; --faint: #7c8188; --rule: #2f3238; --grid: #25282d;
  --chip: #24272c; --code: #1d2025;
  --c0: #62b3ee; --c1: #f0935a; --c2: #45bd97; --c3: #d692bb; --c4: #9fd4f2; --c5: #dab545; --c6: #a9aeb5;
  --l0: #3c6e86; --l1: #478d96; --l2: #5faca2; --l3: #8cc8a7; --l4: #bddfb2; --l5: #f0f3c0;
  --h0: #7cc0ff; --h1: #63a1db; --h2: #4b83b7; --h3: #3c668e; --h4: #354a60; --h5: #2c2f35; --h6: #5a453a;
  --h7: #8a5a3b; --h8: #b57243; --h9: #d98e57; --h10: #ffab6b; --on-strong: #14161a; --on-weak: #e8e6e1;
} }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 var(--sans);
  font-variant-numeric: tabular-nums; }
main { max-width: 1120px; margin: 0 auto; padding: 56px 32px 80px; }
header { margin-bottom: 40px; }
.kicker { margin: 0 0 4px; color: var(--faint); font-size: 12.5px; letter-spacing: 0.04em; }
h1 { margin: 0; font: 600 40px/1.15 var(--serif); letter-spacing: -0.01em; overflow-wrap: anywhere; }
.subtitle { margin: 10px 0 0; color: var(--soft); }
.state { margin: 2px 0 0; color: var(--faint); font-size: 13.5px; }
.figures { display: flex; flex-wrap: wrap; gap: 22px 40px; margin: 32px 0 0; padding: 22px 0 0;
  border-top: 1px solid var(--rule); }
.figures dt { color: var(--soft); font-size: 12.5px; }
.figures dd { margin: 0; font: 500 25px/1.25 var(--sans); letter-spacing: -0.015em; }
.figures div:first-child dd { color: var(--c0); }
.figures small { display: block; color: var(--faint); font: 400 12px/1.4 var(--sans); letter-spacing: 0; }
section { margin-top: 52px; padding-top: 22px; border-top: 1px solid var(--rule); }
h2 { margin: 0; font: 600 23px/1.25 var(--serif); }
h3 { margin: 34px 0 6px; font: 600 15px/1.4 var(--sans); }
.lead { margin: 4px 0 18px; color: var(--soft); font-size: 14px; max-width: 72ch; }
p.note { color: var(--soft); font-size: 13.5px; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 30px 36px; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { margin-bottom: 6px; font-size: 13.5px; line-height: 1.4; }
figcaption b { font-weight: 600; }
.unit { color: var(--soft); font-weight: 400; }
.note { color: var(--faint); }
figcaption .note { font-size: 12px; }
figcaption .note::before { content: "· "; }
figure > svg, .scale > svg { display: block; width: 100%; height: auto; overflow: visible; }
.scale { max-width: 388px; margin: 0 0 18px; }
svg text { font-family: var(--sans); fill: var(--ink); }
svg .tick { font-size: 11px; fill: var(--soft); font-variant-numeric: tabular-nums; }
svg .name { fill: var(--faint); }
svg .end { font-size: 11.5px; font-weight: 500; }
svg .cell { font-size: 11px; fill: var(--on-weak); pointer-events: none; }
svg .t0, svg .t1, svg .t9, svg .t10 { fill: var(--on-strong); }
svg .grid { stroke: var(--grid); stroke-width: 1; }
svg .axis { stroke: var(--faint); stroke-width: 1; }
svg .reference { stroke: var(--faint); stroke-width: 1; stroke-dasharray: 2 3; }
svg .line { fill: none; stroke: currentColor; stroke-width: 1.8; stroke-linejoin: round; stroke-linecap: round; }
svg .faint { fill: none; stroke: currentColor; stroke-width: 0.8; opacity: 0.33; stroke-linejoin: round; }
svg .dot { fill: currentColor; }
svg .hit { fill: currentColor; fill-opacity: 0; }
svg .hit:hover { fill-opacity: 0.35; }
svg .nan { font-size: 13px; fill: var(--c1); font-weight: 600; }
svg .none { fill: none; stroke: var(--rule); }
svg rect:hover { stroke: var(--ink); stroke-width: 1; }
svg .end.muted { fill: var(--faint); font-weight: 400; }
)"
         R"(.c0 { color: var(--c0); } .c1 { color: var(--c1); } .c2 { color: var(--c2); } .c3 { color: var(--c3); }
.c4 { color: var(--c4); } .c5 { color: var(--c5); } .c6 { color: var(--c6); }
.l0 { color: var(--l0); } .l1 { color: var(--l1); } .l2 { color: var(--l2); } .l3 { color: var(--l3); }
.l4 { color: var(--l4); } .l5 { color: var(--l5); }
svg text.end { fill: currentColor; }
.h0 { fill: var(--h0); } .h1 { fill: var(--h1); } .h2 { fill: var(--h2); } .h3 { fill: var(--h3); }
.h4 { fill: var(--h4); } .h5 { fill: var(--h5); } .h6 { fill: var(--h6); } .h7 { fill: var(--h7); }
.h8 { fill: var(--h8); } .h9 { fill: var(--h9); } .h10 { fill: var(--h10); }
.wide { overflow-x: auto; margin: 0 0 24px; }
table { border-collapse: collapse; font-size: 13.5px; width: 100%; }
caption { text-align: left; color: var(--soft); font-size: 13px; padding: 0 0 8px; }
th, td { padding: 6px 14px 6px 0; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
thead th { color: var(--soft); font-weight: 400; font-size: 12.5px; vertical-align: bottom; }
tbody th, thead th:first-child { text-align: left; font-weight: 500; }
th.text, td.text { text-align: left; padding-left: 14px; }
.tokens td.chips { text-align: left; white-space: normal; line-height: 1.9; min-width: 240px; padding-left: 14px; }
.chips code { background: var(--chip); border-radius: 3px; padding: 1px 5px; margin-right: 1px; }
code, pre { font-family: var(--mono); font-size: 12.5px; }
pre { background: var(--code); padding: 16px 18px; margin: 10px 0; overflow-x: auto; border-radius: 4px;
  line-height: 1.55; }
pre.sample { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 480px; overflow-y: auto; }
pre.command { white-space: pre-wrap; overflow-wrap: anywhere; }
details { margin: 6px 0; }
details.run { margin-top: 18px; }
summary { cursor: pointer; padding: 4px 0; font-size: 14px; font-weight: 500; }
.swatch { display: inline-block; width: 11px; height: 11px; border-radius: 2px; margin-right: 8px;
  background: currentColor; vertical-align: -1px; }
@media (max-width: 640px) { main { padding: 28px 16px 48px; } h1 { font-size: 30px; } }
@media print {
  @page { margin: 14mm; }
  :root { --paper: #ffffff; --ink: #000000; --soft: #3c3f44; --faint: #686c72; --rule: #c9c9c9; --grid: #e4e4e4; }
  body { font-size: 11px; } main { max-width: none; padding: 0; }
  section { break-inside: auto; margin-top: 24px; } h2, h3 { break-after: avoid; } tr { break-inside: avoid; }
  .charts { grid-template-columns: 1fr 1fr; gap: 16px 20px; } pre.sample { max-height: none; }
  svg rect, svg path, .chips code, .swatch { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
}
)";
}

}  // namespace conclave::analyze
