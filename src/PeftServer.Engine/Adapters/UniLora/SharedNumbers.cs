using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters.UniLora;

/// <summary>The numbers that train, and the map from the entries of all A and B to them: each is used as often as any other, give or take one.</summary>
internal sealed class SharedNumbers(UniLoraConfig config) : SharedWeights
{
    private readonly Weight _numbers = new(config.ThetaDLength) { Trainable = true };

    public IReadOnlyList<UniLoraProjection> Parts { get; set; } = [];

    public override IEnumerable<(string Key, Weight Weight)> State => [("base_model.unilora_theta_d", _numbers)];

    public override void Initialize(PretrainedModel model, Generator generator)
    {
        if (config.InitWeights)
        {
            _numbers.Uniform(config.InitThetaDBound, generator, model.Device);
        }
        else
        {
            _numbers.Normal(1, generator, model.Device);
        }

        Draw(model.Device);
    }

    public override void Prepare(PretrainedModel model)
    {
        if (!config.SaveIndices)
        {
            Draw(model.Device);
        }
    }

    /// <summary>The numbers at these indices, in their shape.</summary>
    public Tensor At(Tensor indices) => _numbers.Value.index_select(0, indices.flatten()).view(indices.shape);

    private void Draw(Device device)
    {
        var places = Parts.SelectMany(part => part.Places).ToList();
        var (count, length) = (places.Sum(place => place.Indices.ElementCount), config.ThetaDLength);
        var random = new NumpyRandom((ulong)config.ProjSeed);
        var left = (int)(count % length);
        long[] indices = [.. Enumerable.Range(0, length).SelectMany(i => Enumerable.Repeat((long)i, (int)(count / length))), .. left > 0 ? random.Choose(length, left) : []];
        random.Shuffle(indices);

        var uses = new int[length];
        foreach (var index in indices)
        {
            uses[index]++;
        }

        var at = 0L;
        foreach (var (target, scales) in places)
        {
            using var scope = NewDisposeScope();
            var chosen = indices.AsSpan((int)at, (int)target.ElementCount).ToArray();
            var shape = target.Shape.ToArray();
            target.Set(tensor(chosen).view(shape).to(device, copy: true));
            scales.Set(tensor(Array.ConvertAll(chosen, index => 1 / MathF.Sqrt(uses[index]))).view(shape).to(device, copy: true));
            at += target.ElementCount;
        }
    }
}
