using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.Shira;

/// <summary>ΔW at a projection: zero but for trained values at places that are saved with them.</summary>
internal sealed class ShiraProjection : WeightDelta
{
    private static readonly Scalar WholeOne = 1L.ToScalar();

    private readonly ShiraConfig _config;
    private readonly Weight shira_weight;
    private readonly Weight shira_indices; // (2, count): rows, columns

    public ShiraProjection(ShiraConfig config, Projection site)
    {
        var count = (long)config.R * (site.InFeatures + site.OutFeatures);
        if (count > (long)site.InFeatures * site.OutFeatures)
        {
            throw new AdapterException("r", $"{config.R} asks for {count} values; {site.Path} has only {(long)site.InFeatures * site.OutFeatures}.");
        }

        _config = config;
        shira_weight = new Weight(count) { Trainable = true };
        shira_indices = new Weight(2, count) { IsBuffer = true };
    }

    public override IEnumerable<(string Name, Weight Weight)> State => [(nameof(shira_weight), shira_weight), (nameof(shira_indices), shira_indices)];

    public override Tensor DeltaWeight(Projection site)
    {
        using var width = site.InFeatures.ToScalar();
        var places = shira_indices.Value.to(ScalarType.Int64);
        return zeros((long)site.OutFeatures * site.InFeatures, device: places.device)
            .scatter(0, places.select(0, 0).mul(width).add(places.select(0, 1), WholeOne), shira_weight.Value).view(site.OutFeatures, site.InFeatures);
    }

    public override void Initialize(Site site, Generator generator)
    {
        var (projection, device) = ((Projection)site, site.Weight.Value.device);
        using var seeded = _config.RandomSeed is { } seed ? new Generator((ulong)seed) : null;
        var places = randperm((long)projection.InFeatures * projection.OutFeatures, generator: seeded ?? generator).narrow(0, 0, shira_weight.Shape[0]).sort().Values;
        using var width = projection.InFeatures.ToScalar();
        shira_indices.Set(stack([places.floor_divide(width), places.remainder(width)], 0).to(ScalarType.Int32).to(device));
        shira_weight.Normal(_config.InitWeights ? 0 : 1, generator, device);
    }
}
