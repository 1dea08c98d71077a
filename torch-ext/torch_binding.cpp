// The module that Python imports. What registers the ops is in src/ops/<op>/op.cpp, and runs when it is loaded.
#include "registration.h"

REGISTER_EXTENSION(TORCH_EXTENSION_NAME)
