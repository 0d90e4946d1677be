"""The act `bench`: what is measured of a sweep's variants, how, and what is written of it."""
