/*
 * loop.h - loops that are too long for the verifier to look at each turn. Their bodies are functions of their own,
 * which bpf_loop() calls (since Linux 5.17). bcc makes no such calls: LOOP names the function by a number, which
 * bpf/programs/link.py replaces by the address of the code that it puts behind the program. On older kernels the turns stand in
 * the program.
 *
 *   LOOP_BODY(step, struct state *s) { ...; return 1; }    what is done in a turn; 1 ends the loop
 *   LOOP(MOST, step, &state);                              at most MOST turns; the state stands on the stack
 */
#ifdef HAVE_LOOP
#define LOOP_BODY(name, parameter) int name(parameter)
#define LOOP(turns, name, state)                                                                          \
	((long (*)(u32, void *, void *, u64))181 /* BPF_FUNC_loop */)(turns, (void *)LOOP_##name, state, 0)
#else
#define LOOP_BODY(name, parameter) static __always_inline int name(parameter)
#define LOOP(turns, name, state)                                                                          \
	for (int turn_ = 0; turn_ < (turns); turn_++)                                                      \
		if (name(state))                                                                           \
			break;
#endif
