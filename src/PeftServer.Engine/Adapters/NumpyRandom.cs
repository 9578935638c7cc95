namespace PeftServer.Engine.Adapters;

/// <summary>
/// NumPy's <c>default_rng(seed)</c>: PCG64 seeded by SeedSequence, with its ways to draw bounded numbers, to shuffle and to choose. Adapters of
/// PEFT's that keep a seed in place of indices need the very same draws. <see href="https://www.pcg-random.org"/>.
/// </summary>
internal sealed class NumpyRandom
{
    private static readonly UInt128 Multiplier = new(0x2360ED051FC65DA4, 0x4385DF649FCCF645);

    private readonly UInt128 _increment;
    private UInt128 _state;
    private uint? _half; // the upper half of a number whose lower half was used

    public NumpyRandom(ulong seed)
    {
        var words = SeedWords(seed);
        _increment = (new UInt128(words[2], words[3]) << 1) | UInt128.One;
        Step();
        _state += new UInt128(words[0], words[1]);
        Step();
    }

    /// <summary>Puts <paramref name="values"/> into random order.</summary>
    public void Shuffle(long[] values) => Shuffle(values, 1, Masked);

    /// <summary><paramref name="count"/> different numbers below <paramref name="below"/>, in random order.</summary>
    public long[] Choose(long below, int count)
    {
        if (below > 10000 && count > below / 50)
        {
            var all = new long[below];
            for (var i = 0L; i < below; i++)
            {
                all[i] = i;
            }

            Shuffle(all, Math.Max(below - count, 1), UpTo);
            return all[^count..];
        }

        // Floyd's algorithm: a number that is taken already gives its place to the largest so far.
        var (taken, chosen) = (new HashSet<long>(), new long[count]);
        for (var j = below - count; j < below; j++)
        {
            var drawn = (long)UpTo((ulong)j);
            chosen[j - below + count] = taken.Add(drawn) ? drawn : j;
            taken.Add(j == chosen[j - below + count] ? j : drawn);
        }

        Shuffle(chosen, 1, UpTo);
        return chosen;
    }

    private static void Shuffle(long[] values, long first, Func<ulong, ulong> upTo)
    {
        for (var i = values.LongLength - 1; i >= first; i--)
        {
            var j = (long)upTo((ulong)i);
            (values[i], values[j]) = (values[j], values[i]);
        }
    }

    /// <summary>A number from 0 to <paramref name="last"/>: the lowest bits, drawn until they are not too many.</summary>
    private ulong Masked(ulong last)
    {
        var mask = (uint)(System.Numerics.BitOperations.RoundUpToPowerOf2(last + 1) - 1);
        for (; ; )
        {
            var value = NextWord() & mask;
            if (value <= last)
            {
                return value;
            }
        }
    }

    /// <summary>A number from 0 to <paramref name="last"/>, by Lemire's method.</summary>
    private ulong UpTo(ulong last)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(last, (ulong)uint.MaxValue);
        if (last == 0)
        {
            return 0;
        }

        var count = (uint)last + 1;
        var product = (ulong)NextWord() * count;
        if ((uint)product < count)
        {
            var threshold = (uint.MaxValue - (uint)last) % count;
            while ((uint)product < threshold)
            {
                product = (ulong)NextWord() * count;
            }
        }

        return product >> 32;
    }

    private uint NextWord()
    {
        if (_half is { } upper)
        {
            _half = null;
            return upper;
        }

        Step();
        var folded = (ulong)(_state >> 64) ^ (ulong)_state;
        var next = ulong.RotateRight(folded, (int)(_state >> 122));
        _half = (uint)(next >> 32);
        return (uint)next;
    }

    private void Step() => _state = (_state * Multiplier) + _increment;

    /// <summary>SeedSequence(seed).generate_state(4, uint64).</summary>
    private static ulong[] SeedWords(ulong seed)
    {
        const uint MixLeft = 0xca01f9dd, MixRight = 0x4973f715;
        var (hash, pool) = (0x43b0d7e5u, new uint[4]);
        uint Hash(uint value)
        {
            value ^= hash;
            hash *= 0x931e8875;
            value *= hash;
            return value ^ (value >> 16);
        }

        uint[] entropy = [(uint)seed, (uint)(seed >> 32)];
        for (var i = 0; i < 4; i++)
        {
            pool[i] = Hash(i < 2 ? entropy[i] : 0);
        }

        for (var source = 0; source < 4; source++)
        {
            for (var target = 0; target < 4; target++)
            {
                if (source != target)
                {
                    var mixed = (MixLeft * pool[target]) - (MixRight * Hash(pool[source]));
                    pool[target] = mixed ^ (mixed >> 16);
                }
            }
        }

        var (spread, words) = (0x8b51f9ddu, new uint[8]);
        for (var i = 0; i < 8; i++)
        {
            var value = pool[i % 4] ^ spread;
            spread *= 0x58f38ded;
            value *= spread;
            words[i] = value ^ (value >> 16);
        }

        return [.. Enumerable.Range(0, 4).Select(i => words[2 * i] | ((ulong)words[(2 * i) + 1] << 32))];
    }
}
