//! Many sources, many actions, many messages: linear time, flat memory, no deep stack.
