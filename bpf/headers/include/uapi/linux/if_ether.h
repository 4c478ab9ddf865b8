/* empty on purpose: bcc includes it, headrace needs nothing of it */
