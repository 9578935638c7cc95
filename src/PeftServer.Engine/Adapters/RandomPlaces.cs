using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>
/// Places of a matrix [out, in] that a seed picks, as <c>torch.randperm(out · in)[:count]</c> does. They are drawn again, not saved.
/// </summary>
internal sealed class RandomPlaces
{
    private readonly long _rows;
    private readonly long _columns;
    private readonly long _seed;

    /// <summary>Picks <paramref name="count"/> places; <paramref name="field"/> is the setting to name when there are fewer.</summary>
    public RandomPlaces(Projection site, int count, long seed, string field)
    {
        (_rows, _columns, _seed) = (site.OutFeatures, site.InFeatures, seed);
        if (count > _rows * _columns)
        {
            throw new AdapterException(field, $"{count} is more than the {_rows * _columns} values of {site.Path}.");
        }

        Indices = new Weight(count) { Path = $"{site.Path}.indices" };
    }

    /// <summary>Places in the flattened matrix.</summary>
    public Weight Indices { get; }

    public void Draw(Device device)
    {
        using var scope = NewDisposeScope();
        using var generator = new Generator((ulong)_seed);
        Indices.Set(randperm(_rows * _columns, generator: generator).narrow(0, 0, Indices.Shape[0]).to(device, copy: true));
    }

    /// <summary>[out, in]: zero but for <paramref name="values"/> at the places.</summary>
    public Tensor Scatter(Tensor values) =>
        zeros(_rows * _columns, dtype: values.dtype, device: values.device).scatter(0, Indices.Value, values).view(_rows, _columns);
}
