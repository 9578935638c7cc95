using PeftServer.Engine.Models;
using PeftServer.Engine.Native;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Hra;

/// <summary>W′ = W·H at a projection, H a product of reflections.</summary>
internal sealed class HraProjection(HraConfig config, Projection projection) : WeightMap
{
    private static readonly Scalar Two = 2.0.ToScalar();

    private readonly Weight hra_u = new(projection.InFeatures, config.R) { Trainable = true };

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(hra_u), hra_u)];

    public override Tensor Map(Tensor weight)
    {
        // Reflections act on the rows of W one after another: W·H needs no [in, in] matrix.
        var directions = new List<Tensor>();
        for (var i = 0; i < config.R; i++)
        {
            var u = hra_u.Value.narrow(1, i, 1); // [in, 1]
            foreach (var before in config.ApplyGs ? directions : [])
            {
                u = u.Minus(before.mm(before.t().mm(u)));
            }

            directions.Add(u.div(u.mul(u).sum().sqrt()));
        }

        return directions.Aggregate(weight, (w, u) => w.Minus(w.mm(u).mm(u.t()).mul(Two)));
    }

    public override void Initialize(Site site, Generator generator)
    {
        var device = site.Weight.Value.device;
        hra_u.Kaiming(config.R, generator, device);
        if (config.InitWeights && config.R % 2 == 0)
        {
            hra_u.Set(hra_u.Value.narrow(1, 0, config.R / 2).repeat_interleave(2, 1));
        }
    }
}
