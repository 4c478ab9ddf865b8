/* bcc names this type in the macros of programs that headrace does not use. */
#pragma once
struct pt_regs;
