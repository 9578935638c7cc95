using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Models;

/// <summary>
/// Frequencies of rotary positions for each <c>rope_type</c>, as transformers computes them: position interpolation
/// (<see href="https://arxiv.org/abs/2306.15595"/>), NTK-aware scaling by length, YaRN (<see href="https://arxiv.org/abs/2309.00071"/>),
/// LongRoPE (<see href="https://arxiv.org/abs/2402.13753"/>) and Llama 3's.
/// </summary>
internal sealed class RotaryFrequencies
{
    private readonly Func<int, float[]> _at;

    private RotaryFrequencies(Func<int, float[]> at, int firstLong, double attention = 1) => (_at, FirstLong, Attention) = (at, firstLong, attention);

    /// <summary>Factor of the cosines and sines.</summary>
    public double Attention { get; }

    /// <summary>Sequences of this length and longer have frequencies of their own; <see cref="int.MaxValue"/>: none has.</summary>
    public int FirstLong { get; }

    /// <summary>Angle per position of each pair of dimensions, for a sequence of <paramref name="length"/> tokens.</summary>
    public float[] At(int length) => _at(length);

    /// <param name="config">The model's config.</param>
    /// <param name="dim">Dimensions of a head that turn.</param>
    /// <param name="rope"><c>rope_parameters</c> or <c>rope_scaling</c>; null: there is none.</param>
    /// <param name="theta">The base.</param>
    public static RotaryFrequencies Of(PretrainedConfig config, int dim, PretrainedConfig? rope, double theta)
    {
        if (dim is < 0 or > 1 << 16)
        {
            throw config.Unsupported("rope", $"{dim} turning dimensions");
        }

        var type = rope?.Text("rope_type", null!) ?? rope?.Text("type", null!) ?? "default";
        _ = rope?.Text("type", null!); // old configs say both
        return type switch
        {
            "default" => Constant(Base(dim, theta)),
            "linear" => Constant(Base(dim, theta).Select(frequency => frequency / rope!.Number("factor", 1))),
            "llama3" => Constant(Base(dim, theta).Select(frequency => Llama3(frequency, rope!))),
            "dynamic" => Dynamic(config, dim, rope!, theta),
            "yarn" => Yarn(config, dim, rope!, theta),
            "longrope" or "su" => LongRope(config, dim, rope!, theta),
            _ => throw config.Unsupported("rope_type", type),
        };
    }

    private static IEnumerable<double> Base(int dim, double theta) => Enumerable.Range(0, dim / 2).Select(i => 1.0 / Math.Pow(theta, 2.0 * i / dim));

    private static RotaryFrequencies Constant(IEnumerable<double> frequencies, double attention = 1)
    {
        var narrow = Narrow(frequencies);
        return new RotaryFrequencies(_ => narrow, int.MaxValue, attention);
    }

    private static float[] Narrow(IEnumerable<double> frequencies) => [.. frequencies.Select(frequency => (float)frequency)];

    // The base grows with what a sequence is longer than those of pretraining.
    private static RotaryFrequencies Dynamic(PretrainedConfig config, int dim, PretrainedConfig rope, double theta)
    {
        var (factor, trained) = (Required(rope, "factor"), Trained(config, rope));
        return new RotaryFrequencies(
            length => Narrow(Base(dim, theta * Math.Pow((factor * Math.Max(length, trained) / trained) - (factor - 1), dim / (dim - 2.0)))), trained + 1);
    }

    // Fast turns stay, slow ones are stretched by the factor, those between are mixed.
    private static RotaryFrequencies Yarn(PretrainedConfig config, int dim, PretrainedConfig rope, double theta)
    {
        var trained = Trained(config, rope);
        var factor = rope.Number("factor", (double)config.Int("max_position_embeddings") / trained);
        var (fast, slow) = (rope.Number("beta_fast", 32), rope.Number("beta_slow", 1));
        double Dimension(double rotations) => dim * Math.Log(trained / (rotations * 2 * Math.PI)) / (2 * Math.Log(theta));
        var (low, high) = (Dimension(fast), Dimension(slow));
        if (rope.Flag("truncate", true))
        {
            (low, high) = (Math.Floor(low), Math.Ceiling(high));
        }

        (low, high) = (Math.Max(low, 0), Math.Min(high, dim - 1));
        high = low == high ? high + 0.001 : high;
        return Constant(
            Base(dim, theta).Select((frequency, i) =>
            {
                var stretched = Math.Clamp((i - low) / (high - low), 0, 1);
                return (frequency / factor * stretched) + (frequency * (1 - stretched));
            }),
            YarnAttention(rope, factor));
    }

    private static double YarnAttention(PretrainedConfig rope, double factor)
    {
        static double Scale(double by, double times) => by <= 1 ? 1 : (0.1 * times * Math.Log(by)) + 1;
        var (mscale, everywhere) = (rope.Number("mscale", 0), rope.Number("mscale_all_dim", 0));
        return rope.Has("attention_factor") ? rope.Number("attention_factor", 1)
            : mscale != 0 && everywhere != 0 ? Scale(factor, mscale) / Scale(factor, everywhere)
            : Scale(factor, 1);
    }

    // Each frequency has a factor of its own, and another in sequences longer than those of pretraining.
    private static RotaryFrequencies LongRope(PretrainedConfig config, int dim, PretrainedConfig rope, double theta)
    {
        var trained = Trained(config, rope);
        float[] Divided(string field) => rope.Numbers(field) is var factors && factors.Count == dim / 2
            ? Narrow(Base(dim, theta).Select((frequency, i) => frequency / factors[i]))
            : throw config.Unsupported($"rope_parameters.{field}", $"a list of {factors.Count}, where {dim / 2} frequencies turn,");
        var (near, far) = (Divided("short_factor"), Divided("long_factor"));
        var factor = config.Has("original_max_position_embeddings") || !rope.Has("factor")
            ? (double)config.Int("max_position_embeddings") / trained
            : rope.Number("factor", 1);
        _ = rope.Number("factor", 1);
        var attention = rope.Has("attention_factor") ? rope.Number("attention_factor", 1) : factor <= 1 ? 1 : Math.Sqrt(1 + (Math.Log(factor) / Math.Log(trained)));
        return new RotaryFrequencies(length => length > trained ? far : near, trained + 1, attention);
    }

    // Llama 3.1: long waves are stretched by the factor, short ones kept, those between interpolated.
    private static double Llama3(double frequency, PretrainedConfig rope)
    {
        var (factor, original) = (rope.Number("factor", 8), rope.Number("original_max_position_embeddings", 8192));
        var (low, high) = (rope.Number("low_freq_factor", 1), rope.Number("high_freq_factor", 4));
        var wave = 2 * Math.PI / frequency;
        if (wave < original / high)
        {
            return frequency;
        }

        if (wave > original / low)
        {
            return frequency / factor;
        }

        var smooth = ((original / wave) - low) / (high - low);
        return ((1 - smooth) * frequency / factor) + (smooth * frequency);
    }

    /// <summary>Length of the sequences of pretraining.</summary>
    private static int Trained(PretrainedConfig config, PretrainedConfig rope)
    {
        var trained = rope.Int("original_max_position_embeddings", config.Int("original_max_position_embeddings", config.Int("max_position_embeddings")));
        return trained > 0 ? trained : throw config.Unsupported("original_max_position_embeddings", trained);
    }

    private static double Required(PretrainedConfig rope, string field) =>
        rope.Has(field) ? rope.Number(field, 1) : throw new CheckpointException($"config.json: rope_parameters.{field} is missing.");
}
