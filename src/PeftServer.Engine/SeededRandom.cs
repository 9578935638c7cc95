namespace PeftServer.Engine;

/// <summary>
/// A small generator whose numbers depend on its seeds alone, on every machine and version of .NET:
/// <see href="https://prng.di.unimi.it/splitmix64.c">SplitMix64</see>.
/// </summary>
internal sealed class SeededRandom
{
    private ulong _state;

    public SeededRandom(ulong seed, ulong stream = 0)
    {
        _state = seed;
        _state = Next() ^ stream;
    }

    public ulong Next()
    {
        _state += 0x9E3779B97F4A7C15;
        var z = _state;
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
        return z ^ (z >> 31);
    }

    /// <summary>A number in [0, 1).</summary>
    public double NextDouble() => (Next() >> 11) * (1.0 / (1UL << 53));

    /// <summary>A whole number from 0 to <paramref name="bound"/> − 1.</summary>
    public int Below(int bound) => (int)(NextDouble() * bound);
}
