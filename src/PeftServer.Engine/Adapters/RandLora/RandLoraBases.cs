using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.RandLora;

/// <summary>The random bases A [r, 1, min] and B [max, bases, r] that all modules of a RandLoRA adapter share.</summary>
internal sealed class RandLoraBases : SharedWeights
{
    private readonly RandLoraConfig _config;

    public RandLoraBases(RandLoraConfig config, IReadOnlyList<Projection> sites)
    {
        _config = config;
        var (wide, high) = (sites.Max(site => site.InFeatures), sites.Max(site => site.OutFeatures));
        var (least, most) = (Math.Min(wide, high), Math.Max(wide, high));
        A = new Weight(config.R, 1, least) { IsBuffer = true };
        B = new Weight(most, (least + config.R - 1) / config.R, config.R) { IsBuffer = true };
    }

    public Weight A { get; }

    public Weight B { get; }

    public override IEnumerable<(string Key, Weight Weight)> State =>
        _config.SaveProjection ? [("base_model.randlora_A", A), ("base_model.randlora_B", B)] : [];

    public override IEnumerable<Weight> Derived => [A, B];

    public override void Initialize(PretrainedModel model, Generator generator) => Draw(model.Device);

    public override void Prepare(PretrainedModel model)
    {
        if (!_config.SaveProjection)
        {
            Draw(model.Device);
        }
    }

    // As PEFT draws: in bfloat16, Kaiming-uniform with a = √5, each tensor then divided by its deviation.
    private void Draw(Device device)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)_config.ProjectionPrngKey);
        var (r, least) = (A.Shape[0], A.Shape[2]);
        if (_config.Sparse || _config.VerySparse)
        {
            var sparsity = _config.VerySparse ? Math.Sqrt(least) : 3;
            foreach (var basis in new[] { A, B })
            {
                var signs = Signs(rand([.. basis.Shape], generator: generator), 1 / (2 * sparsity));
                basis.Set(signs.div(signs.std()).to(device));
            }

            return;
        }

        var a = Uniform([r, 1, least], generator);
        var b = cat(Enumerable.Range(0, (int)B.Shape[1]).Select(_ => Uniform([B.Shape[0], 1, r], generator)).ToArray(), 1);
        A.Set(a.div(a.std()).to(ScalarType.Float32).to(device));
        B.Set(b.div(b.std()).to(ScalarType.Float32).to(device));
    }

    /// <summary>−1, 0 and 1, so that a share of <paramref name="tail"/> is either: <see href="https://cs-people.bu.edu/evimaria/cs565/kdd-rp.pdf"/>.</summary>
    private static Tensor Signs(Tensor drawn, double tail)
    {
        using var low = tail.ToScalar();
        using var high = (1 - tail).ToScalar();
        return drawn.gt(high).to(ScalarType.Float32).Minus(drawn.lt(low).to(ScalarType.Float32));
    }

    private static Tensor Uniform(long[] shape, Generator generator)
    {
        var bound = Math.Sqrt(3) * (Math.Sqrt(2.0 / 6) / Math.Sqrt(shape[1] * shape[2]));
        return empty(shape, dtype: ScalarType.BFloat16).uniform_(-bound, bound, generator);
    }
}
