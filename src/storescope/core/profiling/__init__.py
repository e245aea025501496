"""Where time goes: profiled calls, a sampler, profiles and quantiles."""
