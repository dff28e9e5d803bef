// SPDX-License-Identifier: Apache-2.0
// A library needs a source file of its own; everything in libconclave comes from the rooms.
