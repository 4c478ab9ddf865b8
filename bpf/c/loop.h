/*
 * loop.h - loops with too many iterations for the verifier to check one by one. Loop bodies are
 * separate functions, called by bpf_loop() (since Linux 5.17). bcc cannot emit such calls: LOOP
 * names the function by a number. bpf/programs/link.py appends the function's code to the program
 * and replaces the number by its address. On older kernels the iterations are part of the program.
 *
 *   LOOP_BODY(step, struct state *s) { ...; return 1; }    one iteration; 1 ends the loop
 *   LOOP(MOST, step, &state);                              at most MOST iterations; the state is on the stack
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
