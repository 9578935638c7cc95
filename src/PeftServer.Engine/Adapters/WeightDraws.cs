using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>How weights start. All draws are on the CPU, so that a seed means the same on every device.</summary>
internal static class WeightDraws
{
    extension(Weight weight)
    {
        public void Zeros(Device device) => weight.Set(zeros([.. weight.Shape], device: device));

        public void Ones(Device device) => weight.Set(ones([.. weight.Shape], device: device));

        public void Fill(double value, Device device)
        {
            using var scalar = value.ToScalar();
            weight.Set(full([.. weight.Shape], scalar, dtype: ScalarType.Float32, device: device));
        }

        /// <summary>Normal with mean 0.</summary>
        public void Normal(double deviation, Generator generator, Device device)
        {
            using var scope = NewDisposeScope();
            using var scale = deviation.ToScalar();
            weight.Set(randn([.. weight.Shape], generator: generator).mul_(scale).to(device));
        }

        /// <summary>Uniform in [-bound, bound).</summary>
        public void Uniform(double bound, Generator generator, Device device)
        {
            using var scope = NewDisposeScope();
            using var half = 0.5.ToScalar();
            using var width = (2 * bound).ToScalar();
            weight.Set(rand([.. weight.Shape], generator: generator).sub_(half).mul_(width).to(device));
        }

        /// <summary>Kaiming-uniform with a = √5, as nn.Linear starts: ±1/√fan_in.</summary>
        public void Kaiming(long fanIn, Generator generator, Device device) => weight.Uniform(1 / Math.Sqrt(fanIn), generator, device);
    }
}
