namespace PeftServer.Engine.Adapters.Lora;

/// <summary>How A and B start, on the CPU so that a seed means the same on every device.</summary>
internal static class LoraInitialization
{
    public static Tensor A(LoraInit init, IReadOnlyList<long> shape, Generator generator)
    {
        var (r, inFeatures) = (shape[0], shape[1]);
        if (init.Name == "gaussian")
        {
            using var deviation = (1.0 / r).ToScalar();
            return randn(r, inFeatures, generator: generator).mul(deviation);
        }

        return Uniform(r, inFeatures, generator);
    }

    public static Tensor B(LoraInit init, IReadOnlyList<long> shape, Generator generator) =>
        init == LoraInit.Random ? Uniform(shape[0], shape[1], generator) : zeros(shape[0], shape[1]);

    /// <summary>Kaiming-uniform with a = √5, as nn.Linear starts: ±1/√fan_in.</summary>
    private static Tensor Uniform(long rows, long fanIn, Generator generator)
    {
        using var half = 0.5.ToScalar();
        using var width = (2 / Math.Sqrt(fanIn)).ToScalar();
        return rand(rows, fanIn, generator: generator).sub_(half).mul_(width);
    }
}
